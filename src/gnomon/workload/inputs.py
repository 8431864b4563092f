"""Example inputs of a task: from its dataset, or drawn from the declared tensors under the task's seed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gnomon.core.errors import ManifestError, did_you_mean
from gnomon.spec import task as spec
from gnomon.workload import source
from gnomon.workload.context import stage_call
from gnomon.workload.splits import rows


def example_inputs(task: spec.Task, floating: torch.dtype | None) -> dict[str, Tensor]:
    """One batch by input name, in the declared order; floating-point tensors in `floating` (None: as declared).

    What the dataset gives goes through the task's preprocessing first. Raises ManifestError naming the input and the
    dimension when something else than was declared comes out.
    """
    preprocess = stage_call(task, "preprocess")
    raw = raw_batch(task)
    return model_inputs(raw if preprocess is None else preprocess(raw), task, floating)


def raw_batch(task: spec.Task, item: int = 0) -> Any:
    """The `item`-th batch before preprocessing: what the dataset gives, or tensors drawn as declared by input name."""
    seed = task.seed + item
    if task.dataset is None:
        return {one.name: _draw(one, task, seed=seed + i) for i, one in enumerate(task.model.inputs)}
    if task.dataset.examples is None:
        return rows(task, str(task.dataset.feeds), item)
    return source.load(task.dataset.examples, task, "dataset.examples")(dict(task.dims), seed)


def model_inputs(given: Any, task: spec.Task, floating: torch.dtype | None) -> dict[str, Tensor]:
    """What the dataset or the preprocessing gave as the model takes it: checked, in the declared order and dtypes."""
    if task.model.stages.preprocess is not None:
        where, wanted = f"task {task.name}: model.stages.preprocess", "preprocess(context, batch)"
    elif task.dataset is not None:
        where, wanted = f"task {task.name}: dataset {task.dataset.name}", "examples(dims, seed)"
    else:  # drawn as declared
        return {name: _cast(value, floating) for name, value in given.items()}
    if not isinstance(given, Mapping):
        raise ManifestError(f"{where}: {wanted} must return a dict of tensors; got {type(given).__name__}")
    declared = [one.name for one in task.model.inputs]
    for name in given:
        if name not in declared:
            near = did_you_mean(str(name), declared)
            raise ManifestError(
                f"{where} gives {name!r}, which is no input of the model.{near} Inputs: {', '.join(declared)}"
            )
    batch = {}
    for one in task.model.inputs:
        if one.name not in given:
            raise ManifestError(f"{where} gives no input {one.name!r}; it gives {', '.join(map(str, given))}")
        value = given[one.name]
        _check(one, value, task, where)
        batch[one.name] = _cast(value.to(getattr(torch, one.dtype)), floating)  # a dataset need not know --dtype
    return batch


def sizes(one: spec.Tensor, task: spec.Task) -> tuple[int, ...]:
    """The shape with names replaced by the task's dims. Raises ManifestError for a name that has no size."""
    for name in one.shape:
        if isinstance(name, str) and name not in task.dims:
            known = ", ".join(task.dims) or "none"
            near = did_you_mean(name, task.dims)
            raise ManifestError(
                f"task {task.name}: input {one.name!r} has a dim {name!r} without a size.{near} dims: {known}"
            )
    return tuple(task.dims[size] if isinstance(size, str) else size for size in one.shape)


def _draw(one: spec.Tensor, task: spec.Task, seed: int) -> Tensor:
    shape, dtype = sizes(one, task), getattr(torch, one.dtype)
    generator = torch.Generator().manual_seed(seed % 2**63)
    if one.fill in ("zeros", "ones"):
        return torch.full(shape, one.fill == "ones", dtype=dtype)
    if one.fill == "integers":
        low, high = int(one.low), int(one.high)
        if low >= high:
            raise ManifestError(
                f"task {task.name}: input {one.name!r} draws integers from [{low}, {high}), which is empty; set high"
            )
        return torch.randint(low, high, shape, generator=generator).to(dtype)
    if not dtype.is_floating_point:
        raise ManifestError(
            f"task {task.name}: input {one.name!r} is {one.dtype} and cannot be drawn with fill {one.fill!r}; "
            "use 'integers' with low and high, 'zeros' or 'ones'"
        )
    if one.fill == "normal":
        return torch.randn(shape, generator=generator).to(dtype)
    return (one.low + (one.high - one.low) * torch.rand(shape, generator=generator)).to(dtype)


def _check(one: spec.Tensor, value: object, task: spec.Task, where: str) -> None:
    if not isinstance(value, Tensor):
        raise ManifestError(f"{where}: input {one.name!r} must be a tensor; got {type(value).__name__}")
    declared = getattr(torch, one.dtype)
    if value.dtype != declared and not (value.is_floating_point() and declared.is_floating_point):
        raise ManifestError(f"{where}: input {one.name!r} is declared {one.dtype}; got {value.dtype}")
    wanted = sizes(one, task)
    if value.dim() != len(wanted):
        raise ManifestError(
            f"{where}: input {one.name!r} is declared with {len(wanted)} dims; got shape {tuple(value.shape)}"
        )
    for i, (name, size, got) in enumerate(zip(one.shape, wanted, value.shape, strict=True)):
        if size != got:
            dim = f"dim {name!r}" if isinstance(name, str) else f"dim {i}"
            raise ManifestError(
                f"{where}: input {one.name!r}, {dim}: the task says {size}, the dataset gives {got} "
                f"(shape {tuple(value.shape)})"
            )


def _cast(value: Tensor, floating: torch.dtype | None) -> Tensor:
    return value.to(floating) if floating is not None and value.is_floating_point() else value
