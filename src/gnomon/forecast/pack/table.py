"""A Parquet table as NumPy arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.forecast.kernels import Array


def read_table(path: Path, columns: list[str] | None) -> dict[str, Array]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise NotRunnable("reading a pack needs pyarrow: pip install 'gnomon[fit]'") from None
    try:
        present = parquet.read_schema(path).names
        missing = ", ".join(name for name in columns or () if name not in present)
        if missing:
            raise UsageError(f"{path}: lacks the columns {missing}; see the README of the pack")
        table = parquet.read_table(path, columns=columns)
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise UsageError(f"{path}: cannot be read as Parquet: {error}") from None
    return {name: _array(table[name]) for name in table.column_names}


def _array(column: Any) -> Array:
    if str(column.type) in ("string", "large_string") or str(column.type).startswith("dictionary"):
        coded = column.combine_chunks().dictionary_encode() if hasattr(column, "combine_chunks") else column
        words = np.array([*(str(word) for word in coded.dictionary.to_pylist()), ""], dtype=object)
        return words[np.nan_to_num(coded.indices.to_numpy(zero_copy_only=False).astype(float), nan=-1).astype(int)]
    return column.to_numpy()
