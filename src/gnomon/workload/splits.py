"""Splits of a dataset: rows from a pinned .npz or .npy file, or from a generator, checked against what was declared."""

import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnomon.core.digest import canonical_json
from gnomon.core.errors import DamagedData, ManifestError, did_you_mean
from gnomon.spec.task import Dataset, Split, Task
from gnomon.workload import source

Columns = dict[str, NDArray[Any]]


def read_split(task: Task, name: str) -> Columns:
    """The columns of a split, each [rows, ...], read-only. A process reads or makes it once.

    Raises ManifestError for a split that is not there, for a file that is neither .npz nor .npy, and when count or
    schema do not hold; DamagedData when the bytes, or what was generated, have another SHA-256 than was declared.
    """
    dataset = task.dataset
    splits: Mapping[str, Split] = dataset.splits if isinstance(dataset, Dataset) else {}
    if name not in splits:
        near = did_you_mean(name, splits)
        known = ", ".join(splits) or "none"
        raise ManifestError(f"task {task.name}: dataset has no split {name!r}.{near} Splits: {known}")
    split, where = splits[name], f"task {task.name}: dataset.splits.{name}"
    if split.path is not None:
        columns = _from_file(split.path, split.sha256, name, where)
    else:
        make = source.load(str(split.generate), task, f"dataset.splits.{name}.source.generate")
        columns = _generated(make, canonical_json(dict(split.arguments)), split.seed, split.sha256, where)
    _check(columns, split, where)
    return columns


def rows(task: Task, name: str, item: int) -> dict[str, Tensor]:
    """The `item`-th B rows of a split by column; after the last row comes the first again.

    Only columns that are inputs of the model, unless a preprocessing stage takes the batch. Raises as `read_split`.
    """
    columns = read_split(task, name)
    wanted = {one.name for one in task.model.inputs}
    batch = task.dims.get("B", 1)
    picked = {}
    for column, values in columns.items():
        if column in wanted or task.model.stages.preprocess is not None:
            index = (np.arange(batch) + item * batch) % len(values)
            picked[column] = torch.from_numpy(values[index])  # a copy: the split itself stays as it is
    return picked


@functools.lru_cache(maxsize=8)
def _from_file(path: str, sha256: str | None, name: str, where: str) -> Columns:
    data = Path(path).read_bytes()  # read once: what is hashed is what is used
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DamagedData(f"{where}: wanted SHA-256 {sha256}, {path} has {found}")
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        columns = {name: loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        raise ManifestError(
            f"{where}: {path} is no .npz or .npy file ({error}). Name a callable in dataset.examples that reads it"
        ) from error
    return _frozen(columns, where)


@functools.lru_cache(maxsize=8)
def _generated(make: Any, arguments: str, seed: int, sha256: str | None, where: str) -> Columns:
    made = make(seed=seed, **json.loads(arguments))
    if not isinstance(made, Mapping):
        raise ManifestError(f"{where}: the generator must return a dict of arrays; got {type(made).__name__}")
    columns = _frozen({str(key): np.asarray(value) for key, value in made.items()}, where)
    found = columns_digest(columns)
    if sha256 is not None and found != sha256:
        raise DamagedData(f"{where}: wanted SHA-256 {sha256}, what was generated has {found}")
    return columns


def columns_digest(columns: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of names, dtypes, shapes and values, columns in the order of their names: what pins a generated split."""
    sha = hashlib.sha256()
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        sha.update(f"{name} {values.dtype.str} {values.shape};".encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def _frozen(columns: Columns, where: str) -> Columns:
    lengths = {name: len(values) if values.ndim else 0 for name, values in columns.items()}
    if not columns or len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ManifestError(f"{where}: wanted columns of one length, with rows in them; got {lengths}")
    for values in columns.values():
        values.flags.writeable = False
    return columns


def _check(columns: Columns, split: Split, where: str) -> None:
    length = len(next(iter(columns.values())))
    if split.count is not None and length != split.count:
        raise ManifestError(f"{where}: count is {split.count}, the split has {length} rows")
    for name, column in split.schema.items():
        if name not in columns:
            raise ManifestError(
                f"{where}: no column {name!r}.{did_you_mean(name, columns)} It has {', '.join(columns)}"
            )
        values = columns[name]
        if (values.dtype.name, values.shape[1:]) != (column.dtype, column.shape):
            raise ManifestError(
                f"{where}: a row of column {name!r} is declared {column.dtype} {list(column.shape)}, it is "
                f"{values.dtype.name} {list(values.shape[1:])}"
            )
