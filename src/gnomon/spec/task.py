"""A resolved task: every reference followed, every default filled in, every file pinned. Plain data, safe to pass on.

Made by `spec.resolve`; turned into a running model only by `workload.program`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gnomon.core.records import NOT_NEGATIVE, POSITIVE, Constraint, record
from gnomon.spec.grammar import LOSS, TARGET

Dtype = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]  # fmt: skip
FloatDtype = Literal["float64", "float32", "float16", "bfloat16"]
Mode = Literal["inference", "training"]
_COSINE = Constraint("a cosine from -1 to 1", lambda value: -1 <= value <= 1, {"minimum": -1, "maximum": 1})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input. shape: sizes, or names that the task's `dims` give a size ('B' is the batch).

    fill: how an example is drawn when no dataset provides one; integers are drawn from [low, high).
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    fill: Literal["normal", "uniform", "zeros", "ones", "integers"] = "normal"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """Where the model comes from.

    source 'python': target 'package.module:callable' of an installed package, called with `arguments`.
    source 'huggingface': target is a class of transformers ('BertModel'), `arguments` its configuration's values;
    weights are random, drawn from `seed`. source 'onnx': target is a file, run by ONNX Runtime, never by torch.
    weights: absolute path of a safetensors file that is loaded strictly into the module, with its SHA-256.
    """

    name: str
    version: str
    source: Literal["python", "huggingface", "onnx"]
    target: str
    arguments: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    seed: int = 0
    weights: str | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Real inputs. examples: 'module:callable' called as examples(dims, seed) -> {input name: tensor}.

    files: name -> absolute path of a data file whose SHA-256 was checked.
    """

    name: str
    version: str
    examples: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training:
    """loss: 'sum' and 'mean' of the first output, or 'module:callable' called as loss(outputs, inputs) -> scalar."""

    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    loss: Annotated[str, LOSS] = "mean"


@dataclass(frozen=True, slots=True)
class Quality:
    """The bound within which a change must stay.

    evaluate: 'module:callable' called as evaluate(predict, dims) -> {metric: value}, where predict maps named
    inputs to output tensors; None when the task has no measure but its outputs. metric: the one that is bound.
    largest_loss: how much worse the metric may get. least_cosine: bound on the mean cosine to the baseline's outputs.
    """

    evaluate: Annotated[str, TARGET] | None = None
    metric: str | None = None
    higher_is_better: bool = True
    largest_loss: Annotated[float, NOT_NEGATIVE] = 0.0
    least_cosine: Annotated[float, _COSINE] = 0.99

    def __post_init__(self) -> None:
        if (self.evaluate is None) != (self.metric is None):
            raise ValueError("'evaluate' and 'metric' go together: the metric is one that evaluate returns")


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a measurement is taken: fresh processes, timed calls in each, and how long warm-up may take."""

    sessions: Annotated[int, POSITIVE] = 3
    calls: Annotated[int, POSITIVE] = 30
    warmup_s: Annotated[float, NOT_NEGATIVE] = 10.0
    timeout_s: Annotated[float, POSITIVE] = 600.0


@record("task", 1)
@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a run needs to know. dims: sizes of the symbolic dimensions, 'B' included.

    digest: identity of the task with all its parts. lock: part -> digest. trusted: code outside installed packages may
    be imported from `folder`, the folder of the manifest. env: variables of the process that runs the model.
    deterministic: only algorithms that give the same bits each time. tf32: float32 products on a GPU may use TF32.
    """

    name: str
    version: str
    description: str
    digest: str
    lock: Mapping[str, str]
    mode: Mode
    dims: Mapping[str, int]
    dtype: Dtype
    device: str
    threads: int
    seed: int
    model: Model
    dataset: Dataset | None
    training: Training | None
    quality: Quality
    protocol: Protocol
    env: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    trusted: bool = False
    deterministic: bool = False
    tf32: bool = False
