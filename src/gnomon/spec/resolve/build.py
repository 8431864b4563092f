"""The parts of a task as a run takes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from gnomon.core.errors import (
    ManifestError,
    NotRunnable,
    did_you_mean,
)
from gnomon.spec import task
from gnomon.spec.manifest import (
    DatasetSpec,
    Input,
    ModelSpec,
    Source,
    SplitSpec,
)
from gnomon.spec.require import installed
from gnomon.spec.resolve.attempt import Attempt, Part
from gnomon.spec.resolve.files import cached_file, check_inline_code, holder, locate_code, pinned_file


def build_model(attempt: Attempt, part: Part, sizes: Mapping[str, int], declared: str, dtype: Any) -> task.Model:
    spec: ModelSpec = part.spec
    target = spec.target or ""
    if spec.source == "python":
        locate_code(attempt, target, part, "target")
    elif spec.source == "huggingface" and installed("transformers") is None:
        attempt.fail(NotRunnable, f"{part.where('source')}: transformers is not installed: pip install transformers")
    elif spec.source == "external":
        attempt.fail(
            NotRunnable,
            f"{part.where('source')}: the model is only described ({target[:200]}); Gnomon runs python, "
            "huggingface and onnx. Convert it to ONNX and pin the file, or name code that builds it",
        )
    elif spec.source == "onnx" and installed("onnxruntime") is None:
        attempt.fail(NotRunnable, f"{part.where('source')}: onnxruntime is not installed: pip install onnxruntime")
    weights = pinned_file(attempt, spec.weights, part, "weights", "model.weights") if spec.weights else None
    if spec.source == "onnx":
        target, weights = weights or "", None
    return task.Model(
        name=part.name,
        version=part.version,
        source=cast(Any, spec.source),  # an external one has failed above
        target=target,
        arguments={k: fill_argument(attempt, v, sizes, part, k) for k, v in spec.arguments.items()},
        inputs=tuple(build_tensor(attempt, i, sizes, declared, dtype) for i in spec.inputs),
        seed=spec.seed,
        weights=weights,
        weights_sha256=spec.weights.sha256 if spec.weights else None,
        outputs=tuple(replace(one, dtype=dtype if one.dtype == declared else one.dtype) for one in spec.outputs),
        stages=build_stages(attempt, spec, sizes, part),
        inline=holder(attempt, part) if any(one.code for one in _stages(spec).values()) else None,
    )


def build_stages(attempt: Attempt, spec: ModelSpec, sizes: Mapping[str, int], part: Part) -> task.Stages:
    """The code around the model, located or admitted, with its arguments' sizes."""
    found = {}
    for name, stage in _stages(spec).items():
        key = f"stages.{name}"
        if stage.target is not None:
            locate_code(attempt, stage.target, part, f"{key}.target")
        else:
            check_inline_code(attempt, str(stage.code), name, part, f"{key}.code")
        arguments = {
            k: fill_argument(attempt, v, sizes, part, k, f"{key}.arguments") for k, v in stage.arguments.items()
        }
        found[name] = replace(stage, arguments=arguments)
    return task.Stages(**found)


def fill_argument(
    attempt: Attempt, value: Any, sizes: Mapping[str, int], part: Part, key: str, table: str = "arguments"
) -> Any:
    """'$L' is the size of the dimension L, '$$' a dollar sign."""
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value.startswith("$$"):
        return value[1:]
    if value[1:] not in sizes:
        near = did_you_mean(value[1:], sizes)
        known = ", ".join(sizes)
        attempt.fail(ManifestError, f"{part.where(f'{table}.{key}')}: no dimension {value[1:]!r}.{near} Known: {known}")
    return sizes.get(value[1:])


def build_tensor(attempt: Attempt, given: Input, sizes: Mapping[str, int], declared: str, dtype: Any) -> task.Tensor:
    """Floating inputs in the task's own dtype follow the dtype that is asked for."""
    floating = given.dtype in get_args(task.FloatDtype)
    fill = given.fill or ("normal" if floating else "ones" if given.dtype == "bool" else "integers")
    low, high = (float(sizes.get(b, 0)) if isinstance(b, str) else b for b in (given.low, given.high))
    kind = dtype if given.dtype == declared else given.dtype
    return task.Tensor(given.name, kind, given.shape, fill, low, high, given.layout, given.semantics)


def build_dataset(attempt: Attempt, part: Part | None, mode: str) -> task.Dataset | None:
    if part is None:
        return None
    spec: DatasetSpec = part.spec
    if spec.examples is not None:
        locate_code(attempt, spec.examples, part, "examples")
    splits = {name: build_split(attempt, name, one, part) for name, one in sorted(spec.splits.items())}
    feeds = spec.feeds if spec.examples is None else None
    if spec.examples is None and feeds is None:
        usual = "train" if mode == "training" else "test"
        feeds = usual if usual in splits else next(iter(splits)) if len(splits) == 1 else None
        if feeds is None:
            attempt.fail(
                ManifestError,
                f"{part.where('splits')}: which split feeds the model? There is no {usual!r} among "
                f"{', '.join(splits)}; name one in 'feeds'",
            )
        else:
            attempt.decide(f"dataset: batches are rows of the split {feeds!r}")
    files = {
        n: pinned_file(attempt, s, part, f"files.{n}", f"dataset.files.{n}") for n, s in sorted(spec.files.items())
    }
    found = {n: p for n, p in files.items() if p is not None}
    return task.Dataset(part.name, part.version, spec.examples, found, splits, feeds)


def build_split(attempt: Attempt, name: str, spec: SplitSpec, part: Part) -> task.Split:
    """One split: its file pinned, its generator located, its address looked up in the cache."""
    key, path, source = f"splits.{name}.source", None, spec.source
    if source.generate is not None:
        locate_code(attempt, source.generate, part, f"{key}.generate")
    elif source.url is not None:
        path = cached_file(attempt, source.url, str(spec.sha256), part, f"{key}.url", f"dataset.splits.{name}")
    else:
        pinned = Source(str(spec.sha256), source.file, source.package)
        path = pinned_file(attempt, pinned, part, key, f"dataset.splits.{name}")
    return task.Split(path, source.generate, source.arguments, source.seed, spec.sha256, spec.count, spec.schema)


def _stages(spec: ModelSpec) -> dict[str, task.Stage]:
    pairs = (("preprocess", spec.stages.preprocess), ("postprocess", spec.stages.postprocess))
    return {name: stage for name, stage in pairs if stage is not None}
