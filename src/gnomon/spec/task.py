"""A resolved task: every reference followed, every default filled in, every file pinned. Plain data, safe to pass on.

Made by `spec.resolve`; turned into a running model only by `workload.program`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gnomon.core.records import NOT_EMPTY, NOT_NEGATIVE, POSITIVE, Constraint, record
from gnomon.spec.grammar import ARGUMENT, DIM, INPUT, LAYOUT, LOSS, SIZE, TARGET

Dtype = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]  # fmt: skip
FloatDtype = Literal["float64", "float32", "float16", "bfloat16"]
Size = Annotated[int, SIZE]
Axis = Size | Annotated[str, DIM]
Mode = Literal["inference", "training"]
TraceLevel = Literal["model", "layer", "operator", "kernel"]
Metric = Literal[
    "latency_p50_s", "latency_p90_s", "latency_p99_s", "latency_mean_s", "cpu_p50_s", "throughput_per_s", "quality"
]
ScenarioName = Literal["single-stream", "multi-stream", "server", "offline", "training-steps"]
_SHARE = Constraint(
    "a share between 0 and 1, both excluded (0.99 is the 99th percentile)",
    lambda value: 0 < value < 1,
    {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
)
_COSINE = Constraint("a cosine from -1 to 1", lambda value: -1 <= value <= 1, {"minimum": -1, "maximum": 1})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input. shape: sizes, or names that the task's `dims` give a size ('B' is the batch).

    fill: how an example is drawn when no dataset provides one; integers are drawn from [low, high).
    layout: a letter for each axis ('NCHW'). semantics: what the values mean ('RGB in 0..1', 'token ids').
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    fill: Literal["normal", "uniform", "zeros", "ones", "integers"] = "normal"
    low: float = 0.0
    high: float = 1.0
    layout: str | None = None
    semantics: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """One named output. shape: sizes and names of dimensions; a name that the inputs do not know takes any one size."""

    name: Annotated[str, INPUT]
    dtype: Dtype
    shape: tuple[Axis, ...]
    layout: Annotated[str, LAYOUT] | None = None
    semantics: str = ""

    def __post_init__(self) -> None:
        check_layout(self.layout, self.shape)


def check_layout(layout: str | None, shape: tuple[int | str, ...]) -> None:
    """Raises ValueError unless the layout has a letter of its own for each axis."""
    if layout is not None and (len(layout) != len(shape) or len(set(layout)) < len(layout)):
        raise ValueError(f"wanted a layout with a letter of its own for each of {len(shape)} axes, got {layout!r}")


@dataclass(frozen=True, slots=True)
class Stage:
    """Code before or after the model: called as stage(context, batch, **arguments), returns the next batch.

    target: 'module:callable'. code: the same as text that defines a function of the stage's name; it runs only when the
    manifest is on the user's trust list.
    """

    target: Annotated[str, TARGET] | None = None
    code: Annotated[str, NOT_EMPTY] | None = None
    arguments: Mapping[Annotated[str, ARGUMENT], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.target is None) == (self.code is None):
            raise ValueError("a stage has exactly one of 'target' and 'code'")


@dataclass(frozen=True, slots=True)
class Stages:
    """preprocess: from what the dataset gives to the model's inputs by name. postprocess: of the outputs, a tuple."""

    preprocess: Stage | None = None
    postprocess: Stage | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Where the model comes from.

    source 'python': target 'package.module:callable' of an installed package, called with `arguments`.
    source 'huggingface': target is a class of transformers ('BertModel'), `arguments` its configuration's values;
    weights are random, drawn from `seed`. source 'onnx': target is a file, run by ONNX Runtime, never by torch.
    weights: absolute path of a safetensors file that is loaded strictly into the module, with its SHA-256.
    outputs: what comes back, in order; empty when that is not stated. inline: digest of the manifest that holds the
    stages' inline code, None when there is none.
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
    outputs: tuple[Output, ...] = ()
    stages: Stages = Stages()
    inline: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a split. shape: of one row."""

    dtype: Dtype
    shape: tuple[Size, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a dataset. path: its file, whose SHA-256 was checked; None for what `generate` makes.

    generate: 'module:callable' called as generate(seed=seed, **arguments) -> {column: array}. count: rows, schema:
    columns; both are checked when the split is read. sha256: of the file, or of what was generated.
    """

    path: str | None = None
    generate: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    sha256: str | None = None
    count: int | None = None
    schema: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Real inputs. examples: 'module:callable' called as examples(dims, seed) -> {input name: tensor}.

    files: name -> absolute path of a data file whose SHA-256 was checked. splits: by name; without `examples`, batches
    are rows of the one that `feeds` names.
    """

    name: str
    version: str
    examples: str | None
    files: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    feeds: str | None = None


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


_SCENARIO_LIMITS = {  # what the manifest's reader checks by the fields' types, checked for Python callers, too
    **dict.fromkeys(("samples_per_query", "target_qps", "latency_bound_s", "min_queries", "max_queries"), POSITIVE),
    **dict.fromkeys(("max_duration_s", "evaluate_every"), POSITIVE),
    **dict.fromkeys(("min_duration_s", "seed"), NOT_NEGATIVE),
    **dict.fromkeys(("percentile", "confidence"), _SHARE),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """The load that a task is put under: one of MLPerf Inference's four scenarios, or steps of training.

    samples_per_query: None is the scenario's own: 1, for multi-stream 8, for offline as many as fill min_duration_s.
    target_qps: server: mean rate of the Poisson arrivals; offline: samples per second that are expected, which sizes
    the one query. latency_bound_s: server: no more than 1 - percentile of the queries may take longer.
    percentile: the latency that is reported or bound; None is the scenario's own: 0.9 for single-stream, else 0.99.
    confidence: of the early-stopping estimate. min_queries, min_duration_s: both must be reached; max_queries and
    max_duration_s end a run whatever came before. seed: of arrivals and sample order.
    Training: a query is a step; target_quality (of the task's quality metric) or target_loss (mean of the last
    evaluate_every steps) ends it, looked at every evaluate_every steps.
    """

    name: ScenarioName
    samples_per_query: Annotated[int, POSITIVE] | None = None
    target_qps: Annotated[float, POSITIVE] | None = None
    latency_bound_s: Annotated[float, POSITIVE] | None = None
    percentile: Annotated[float, _SHARE] | None = None
    confidence: Annotated[float, _SHARE] = 0.99
    min_queries: Annotated[int, POSITIVE] = 100
    min_duration_s: Annotated[float, NOT_NEGATIVE] = 10.0
    max_queries: Annotated[int, POSITIVE] | None = None
    max_duration_s: Annotated[float, POSITIVE] | None = None
    seed: Annotated[int, NOT_NEGATIVE] = 0
    target_quality: float | None = None
    target_loss: float | None = None
    evaluate_every: Annotated[int, POSITIVE] = 10

    def __post_init__(self) -> None:
        for key, constraint in _SCENARIO_LIMITS.items():
            value = getattr(self, key)
            if value is not None and not constraint.holds(value):
                raise ValueError(f"{key}: wanted {constraint.wanted}, got {value}")
        if self.name == "server" and (self.target_qps is None or self.latency_bound_s is None):
            raise ValueError("scenario 'server' needs target_qps and latency_bound_s")
        if self.latency_bound_s is not None and self.name != "server":
            raise ValueError(f"latency_bound_s belongs to scenario 'server'; this is {self.name!r}")
        if self.target_qps is not None and self.name not in ("server", "offline"):
            raise ValueError(f"target_qps belongs to scenarios 'server' and 'offline'; this is {self.name!r}")
        targets = [key for key in ("target_quality", "target_loss") if getattr(self, key) is not None]
        for key, least, most in (
            ("queries", self.min_queries, self.max_queries),
            ("duration_s", self.min_duration_s, self.max_duration_s),
        ):
            if most is not None and most < least and not targets:  # with a target there is no least
                raise ValueError(f"max_{key} is {most}, less than min_{key}, {least}")
        if targets and self.name != "training-steps":
            raise ValueError(f"{targets[0]} belongs to scenario 'training-steps'; this is {self.name!r}")
        if len(targets) == 2:
            raise ValueError("target_quality and target_loss exclude each other; give the one that ends the training")
        if targets and self.max_queries is None and self.max_duration_s is None:
            raise ValueError(f"{targets[0]} may never be reached; give max_queries (steps) or max_duration_s as well")

    @property
    def query_samples(self) -> int:
        """Samples in a query where the scenario sets them; 1 for offline, whose one query the runner sizes."""
        return self.samples_per_query or (8 if self.name == "multi-stream" else 1)

    @property
    def bound_percentile(self) -> float:
        """The percentile in force."""
        return self.percentile or (0.9 if self.name == "single-stream" else 0.99)


@record("task", 1)
@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a run needs to know. dims: sizes of the symbolic dimensions, 'B' included.

    digest: identity of the task with all its parts. lock: part -> digest. trusted: code outside installed packages may
    be imported from `folder`, the folder of the manifest. env: variables of the process that runs the model.
    deterministic: only algorithms that give the same bits each time. tf32: float32 products on a GPU may use TF32.
    scenario: the load that the manifest asks for; None leaves it to the command. trace_level: how deep a measurement
    looks when nobody says. metrics: what a reference log keeps, 'quality' is the task's own metric. named, search: what
    was given to `resolve`, with files and folders as absolute paths; no part of the identity.
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
    scenario: Scenario | None = None
    trace_level: TraceLevel = "model"
    metrics: tuple[Metric, ...] = ("latency_p50_s",)
    named: str = ""
    search: tuple[str, ...] = ()
