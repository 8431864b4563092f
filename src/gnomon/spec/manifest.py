"""The kinds of manifest as frozen records: what may stand in a file, key by key. Reading them runs no code.

After DLSpec (Dakkak et al., OpML 2020, arXiv:2002.11262): a task and its model, dataset, software and hardware are
separate, versioned documents. `docs/manifest.md` explains every key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gnomon.core.digest import digest
from gnomon.core.errors import did_you_mean
from gnomon.core.records import NOT_EMPTY, NOT_NEGATIVE, POSITIVE, Problem, StructureError, structure, to_json
from gnomon.spec.grammar import (
    ARCHITECTURE,
    ARGUMENT,
    DIGEST,
    DIM,
    ENV_NAME,
    INPUT,
    LAYOUT,
    NAME,
    PACKAGE_FILE,
    REFERENCE,
    REQUIREMENT,
    SHA256,
    TARGET,
    URL,
    VERSION,
)
from gnomon.spec.lock import Lock
from gnomon.spec.task import (
    Axis,
    Column,
    Dtype,
    FloatDtype,
    Metric,
    Mode,
    Output,
    Protocol,
    Quality,
    Scenario,
    Size,
    Stages,
    TraceLevel,
    Training,
    check_layout,
)

API_VERSION = "gnomon/v1"
ASPECTS = ("model", "dataset", "software", "hardware")
Kind = Literal["Task", "Model", "Dataset", "Software", "Hardware", "ReferenceLog"]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Who a manifest is. name and version are its identity; the rest is for people."""

    name: Annotated[str, NAME]
    version: Annotated[str, VERSION]
    description: str = ""
    license: str = ""
    references: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """A part that is another manifest, by name: the highest version that satisfies the constraint."""

    ref: Annotated[str, REFERENCE]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part that is another manifest, by path relative to this file; it may not leave this file's folder."""

    file: Annotated[str, NOT_EMPTY]


@dataclass(frozen=True, slots=True)
class Source:
    """A pinned file: `file` relative to the manifest, or `package` as 'distribution/path/inside'; with its SHA-256."""

    sha256: Annotated[str, SHA256]
    file: Annotated[str, NOT_EMPTY] | None = None
    package: Annotated[str, PACKAGE_FILE] | None = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.package is None):
            raise ValueError("wanted exactly one of 'file' and 'package' beside 'sha256'")


@dataclass(frozen=True, slots=True)
class Input:
    """One named input. fill: how an example is drawn when no dataset provides one; integers lie in [low, high).

    low, high: numbers, or the name of a dimension ('V': indices of V nodes). fill defaults to 'normal' for floating
    dtypes, 'integers' for whole numbers and 'ones' for bool. layout, semantics: see `task.Tensor`.
    """

    name: Annotated[str, INPUT]
    dtype: Dtype
    shape: tuple[Axis, ...]
    fill: Literal["normal", "uniform", "zeros", "ones", "integers"] | None = None
    low: float | Annotated[str, DIM] = 0.0
    high: float | Annotated[str, DIM] = 1.0
    layout: Annotated[str, LAYOUT] | None = None
    semantics: str = ""

    def __post_init__(self) -> None:
        check_layout(self.layout, self.shape)
        if isinstance(self.low, float) and isinstance(self.high, float) and self.low >= self.high:
            raise ValueError(f"wanted 'low' below 'high', got {self.low:g} and {self.high:g}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Where a model comes from and what it takes.

    source 'python' calls target 'package.module:callable' with `arguments`; 'huggingface' makes the class `target` of
    transformers with a configuration of `arguments`, or of a file; 'onnx' runs the file `weights` in ONNX Runtime.
    'external' is a model that Gnomon cannot run, kept with what is known of it: target says what and where it is.
    An argument '$L' is the size of the dimension L. dims: default sizes; max_dims: the largest that the model takes.
    outputs: what comes back, in order, when it is stated. stages: code around the model.
    """

    source: Literal["python", "huggingface", "onnx", "external"]
    inputs: tuple[Input, ...]
    target: Annotated[str, NOT_EMPTY] | None = None
    arguments: Mapping[Annotated[str, ARGUMENT], Any] = field(default_factory=dict)
    weights: Source | None = None
    dims: Mapping[Annotated[str, DIM], Size] = field(default_factory=dict)
    max_dims: Mapping[Annotated[str, DIM], Size] = field(default_factory=dict)
    seed: int = 0
    outputs: tuple[Output, ...] = ()
    stages: Stages = field(default_factory=Stages)

    def __post_init__(self) -> None:
        if self.source == "onnx":
            if self.target is not None or self.arguments or self.weights is None:
                raise ValueError("source 'onnx' wants 'weights' (the .onnx file) and neither 'target' nor 'arguments'")
        elif self.target is None:
            raise ValueError(f"source {self.source!r} wants 'target'")
        elif self.source == "python" and not TARGET.holds(self.target):
            raise ValueError(f"wanted 'target' to be {TARGET.wanted}, got {self.target!r}")
        elif self.source == "huggingface" and not self.target.isidentifier():
            raise ValueError(f"wanted 'target' to be a class of transformers such as 'BertModel', got {self.target!r}")
        names = [i.name for i in self.inputs]
        if self.source in ("python", "huggingface"):
            odd = [name for name in names if not ARGUMENT.holds(name)]
            if odd:
                raise ValueError(f"source {self.source!r} wants inputs named as arguments are, got {odd[0]!r}")
        for what, given in (("inputs", names), ("outputs", [o.name for o in self.outputs])):
            twice = sorted({n for n in given if given.count(n) > 1})
            if twice:
                raise ValueError(f"two {what} have the same name: {', '.join(twice)}")


@dataclass(frozen=True, slots=True)
class Provided:
    """What a dataset gives for one input; it must agree with what the model takes, in as far as both say it."""

    dtype: Dtype
    shape: tuple[Axis, ...]
    layout: Annotated[str, LAYOUT] | None = None
    semantics: str = ""

    def __post_init__(self) -> None:
        check_layout(self.layout, self.shape)


@dataclass(frozen=True, slots=True)
class SplitSource:
    """Where the rows of a split come from: exactly one of the four.

    file, package: as in `Source`. generate: a callable, called as generate(seed=seed, **arguments) -> {column: array}.
    url: a file that must already lie in the local cache; nothing is fetched.
    """

    file: Annotated[str, NOT_EMPTY] | None = None
    package: Annotated[str, PACKAGE_FILE] | None = None
    generate: Annotated[str, TARGET] | None = None
    url: Annotated[str, URL] | None = None
    arguments: Mapping[Annotated[str, ARGUMENT], Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        given = [key for key in ("file", "package", "generate", "url") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                "a split has exactly one of 'file', 'package', 'generate' and 'url', got "
                f"{' and '.join(given) or 'none'}"
            )
        if given != ["generate"] and (self.arguments or self.seed):
            raise ValueError(f"a split from {given[0]!r} takes neither 'arguments' nor 'seed'")


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """One part of a dataset. sha256: of the file, or of what is generated; count: rows; schema: columns of a row."""

    source: SplitSource
    sha256: Annotated[str, SHA256] | None = None
    count: Annotated[int, POSITIVE] | None = None
    schema: Mapping[Annotated[str, ARGUMENT], Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sha256 is None and self.source.generate is None:
            raise ValueError("a split from a file, a package or a url wants 'sha256'")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Real inputs: examples(dims, seed) -> {input name: tensor}. files: what it reads, pinned.

    splits: parts by name. Without `examples` the rows of one split are the inputs, B at a time: the one that `feeds`
    names, else 'train' for training and 'test' for inference, else the only one.
    """

    examples: Annotated[str, TARGET] | None = None
    files: Mapping[str, Source] = field(default_factory=dict)
    provides: Mapping[Annotated[str, ARGUMENT], Provided] = field(default_factory=dict)
    splits: Mapping[Annotated[str, NAME], SplitSpec] = field(default_factory=dict)
    feeds: Annotated[str, NAME] | None = None

    def __post_init__(self) -> None:
        if self.examples is None and not self.splits:
            raise ValueError("a dataset has 'examples', 'splits' or both")
        if self.examples is not None and self.feeds is not None:
            raise ValueError("'examples' and 'feeds' exclude each other: batches come from one of them")
        if self.feeds is not None and self.feeds not in self.splits:
            raise ValueError(f"'feeds' is {self.feeds!r}, which is none of the splits: {', '.join(self.splits)}")


@dataclass(frozen=True, slots=True)
class Determinism:
    """How exact the software must be. Seeds and threads are the task's own."""

    deterministic_algorithms: bool = False
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class SoftwareSpec:
    """What must be installed. python: a version range; packages: requirements as in PEP 508; env: variables to set."""

    python: Annotated[str, NOT_EMPTY] | None = None
    packages: tuple[Annotated[str, REQUIREMENT], ...] = ()
    env: Mapping[Annotated[str, ENV_NAME], str] = field(default_factory=dict)
    determinism: Determinism = Determinism()


@dataclass(frozen=True, slots=True)
class Cpu:
    """Wanted of the processor. arch: any of these; isa: all of these extensions."""

    arch: tuple[str, ...] = ()
    min_cores: Annotated[int, POSITIVE] | None = None
    isa: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Wanted of the accelerators: `count` of them that meet all the rest. arch_min: such as 'sm_80' or 'gfx942'."""

    vendor: Annotated[str, NOT_EMPTY] | None = None
    arch_min: Annotated[str, ARCHITECTURE] | None = None
    count: Annotated[int, POSITIVE] = 1
    memory_gib: Annotated[float, POSITIVE] | None = None


@dataclass(frozen=True, slots=True)
class HardwareSpec:
    """Predicates on the machine, never facts of one machine."""

    cpu: Cpu = Cpu()
    memory_gib: Annotated[float, POSITIVE] | None = None
    disk_gib: Annotated[float, POSITIVE] | None = None
    accelerators: tuple[Accelerator, ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """Alternatives: parts by aspect, dtypes, and sizes of a dimension. An aspect without any is not varied."""

    model: tuple[Reference | PartFile | ModelSpec, ...] = ()
    dataset: tuple[Reference | PartFile | DatasetSpec, ...] = ()
    software: tuple[Reference | PartFile | SoftwareSpec, ...] = ()
    hardware: tuple[Reference | PartFile | HardwareSpec, ...] = ()
    dtype: tuple[FloatDtype, ...] = ()
    dims: Mapping[Annotated[str, DIM], Annotated[tuple[Size, ...], NOT_EMPTY]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any((self.model, self.dataset, self.software, self.hardware, self.dtype, self.dims)):
            raise ValueError("an empty matrix: wanted alternatives of " + ", ".join((*ASPECTS, "dtype", "dims")))


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task: its four parts, each inline, by `ref` or by `file`, and how it is run, judged and measured.

    extends: another task whose keys hold where this one says nothing; tables are merged key by key, parts are not.
    matrix: several alternatives, each combination of which is a task (see `spec.matrix`). scenario: its load.
    trace_level: how deep `gnomon run` looks when it is not told. metrics: what a reference log keeps.
    """

    model: Reference | PartFile | ModelSpec | None = None
    dataset: Reference | PartFile | DatasetSpec | None = None
    software: Reference | PartFile | SoftwareSpec | None = None
    hardware: Reference | PartFile | HardwareSpec | None = None
    mode: Mode = "inference"
    dims: Mapping[Annotated[str, DIM], Size] = field(default_factory=dict)
    dtype: FloatDtype = "float32"
    threads: Annotated[int, POSITIVE] = 1
    seed: int = 0
    training: Training | None = None
    quality: Quality = field(default_factory=Quality)
    protocol: Protocol = field(default_factory=Protocol)
    scenario: Scenario | None = None
    trace_level: TraceLevel = "model"
    metrics: Annotated[tuple[Metric, ...], NOT_EMPTY] = ("latency_p50_s",)
    extends: Reference | PartFile | None = None
    matrix: Matrix | None = None

    def __post_init__(self) -> None:
        if self.model is None and self.extends is None and not (self.matrix and self.matrix.model):
            raise ValueError("wanted 'model' (inline, {ref: name@constraint} or {file: ./model.yaml}), or 'extends'")
        for aspect in ASPECTS if self.matrix else ():
            if getattr(self, aspect) is not None and getattr(self.matrix, aspect):
                raise ValueError(f"{aspect!r} stands both in the task and in its matrix; one of them is meant")
        if "quality" in self.metrics and self.quality.evaluate is None and self.extends is None:
            raise ValueError("the metric 'quality' wants quality.evaluate and quality.metric")


@dataclass(frozen=True, slots=True)
class Result:
    """A metric as the author of a log got it. samples: one value per session (fresh process), in the unit.

    tolerance: how far a new value may lie on the worse side of this one, in the unit; None where times are compared,
    by the interval of their ratio.
    """

    value: float
    unit: str
    n: Annotated[int, POSITIVE]
    ci95: tuple[float, float] | None = None
    samples: tuple[float, ...] = ()
    higher_is_better: bool = False
    tolerance: Annotated[float, NOT_NEGATIVE] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """An output as the author got it. digest: of its bits. file: its values (.npy) beside the log, with their SHA-256.

    With a file |new - expected| <= atol + rtol |expected| is asked of every value, without one the same bits.
    """

    name: Annotated[str, NOT_EMPTY]
    dtype: Dtype
    shape: tuple[Annotated[int, NOT_NEGATIVE], ...]
    digest: Annotated[str, DIGEST]
    file: Annotated[str, NOT_EMPTY] | None = None
    sha256: Annotated[str, SHA256] | None = None
    atol: Annotated[float, NOT_NEGATIVE] = 0.0
    rtol: Annotated[float, NOT_NEGATIVE] = 0.0

    def __post_init__(self) -> None:
        if (self.file is None) != (self.sha256 is None):
            raise ValueError("'file' and 'sha256' go together")


@dataclass(frozen=True, slots=True)
class ReferenceLogSpec:
    """What an author got: of which task (its lock), on which machine, with which software, and the results.

    machine: facts, as `gnomon doctor` tells them; device: where the task ran. software: package -> version.
    """

    lock: Lock
    device: Annotated[str, NOT_EMPTY]
    machine: Mapping[str, Any]
    software: Mapping[str, str]
    metrics: Mapping[Metric, Result]
    outputs: tuple[Expected, ...]
    author: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What every manifest has."""

    api_version: Literal["gnomon/v1"] = field(metadata={"key": "apiVersion"})
    kind: Kind
    metadata: Metadata
    spec: Any

    @property
    def identity(self) -> str:
        return f"{self.metadata.name}@{self.metadata.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of kind, name, version and spec in canonical form: the same however the file is written."""
        meta = self.metadata
        return spec_digest(self.kind, meta.name, meta.version, self.spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManifest(Manifest):
    """A task."""

    kind: Literal["Task"]
    spec: TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest(Manifest):
    """A model."""

    kind: Literal["Model"]
    spec: ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest(Manifest):
    """A dataset."""

    kind: Literal["Dataset"]
    spec: DatasetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareManifest(Manifest):
    """A software environment."""

    kind: Literal["Software"]
    spec: SoftwareSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareManifest(Manifest):
    """A machine's least properties."""

    kind: Literal["Hardware"]
    spec: HardwareSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLog(Manifest):
    """What an author got."""

    kind: Literal["ReferenceLog"]
    spec: ReferenceLogSpec


KINDS: dict[str, type[Manifest]] = {
    "Task": TaskManifest,
    "Model": ModelManifest,
    "Dataset": DatasetManifest,
    "Software": SoftwareManifest,
    "Hardware": HardwareManifest,
    "ReferenceLog": ReferenceLog,
}


def read(document: Any) -> Manifest:
    """A manifest from plain data. Raises StructureError with every problem and its place."""
    if not isinstance(document, Mapping):
        raise StructureError(
            [Problem((), f"wanted a manifest with the keys apiVersion, kind, metadata and spec, got {_what(document)}")]
        )
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        came = f"got {kind!r}.{did_you_mean(str(kind), KINDS)}" if "kind" in document else "it is missing"
        raise StructureError([Problem(("kind",), f"wanted one of {', '.join(KINDS)}; {came}".removesuffix("."))])
    manifest: Manifest = structure(KINDS[kind], document)
    return manifest


def spec_digest(kind: str, name: str, version: str, spec: Any) -> str:
    """Identity of a manifest or of an inline part."""
    return digest({"kind": kind, "name": name, "version": version, "spec": without_defaults(spec)})


def without_defaults(value: Any) -> Any:
    """The JSON form of a record less every field that has its default: what it says, however it was written."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = {}
        for f in dataclasses.fields(value):
            item = getattr(value, f.name)
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            if item != default or type(item) is not type(default):
                said[str(f.metadata.get("key", f.name))] = without_defaults(item)
        return said
    if isinstance(value, tuple | list):
        return [without_defaults(item) for item in value]
    if isinstance(value, Mapping):
        return {key: without_defaults(item) for key, item in value.items()}
    return to_json(value)


def _what(value: Any) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list | tuple) else f"only {value!r:.60}"
