"""From a name or a file to a Task: every reference followed, every default filled, every file pinned, no code run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast, get_args

from gnomon.core.digest import digest, file_digest
from gnomon.core.errors import (
    DamagedData,
    GnomonError,
    ManifestError,
    MissingReference,
    NotRunnable,
    ReferenceCycle,
    UnknownName,
    UnsatisfiedHardware,
    did_you_mean,
)
from gnomon.core.paths import home
from gnomon.core.records import Problem
from gnomon.spec import adopt, task
from gnomon.spec.code import locate, why_not_inline
from gnomon.spec.combine import chosen, combinations
from gnomon.spec.find import Found, find, inside, task_names
from gnomon.spec.grammar import LARGEST_SIZE, REFERENCE, TARGET
from gnomon.spec.load import Loaded, load, show
from gnomon.spec.lock import Lock
from gnomon.spec.manifest import (
    DatasetSpec,
    HardwareSpec,
    Input,
    Manifest,
    ModelSpec,
    PartFile,
    Reference,
    SoftwareSpec,
    Source,
    SplitSpec,
    TaskSpec,
    spec_digest,
    without_defaults,
)
from gnomon.spec.require import facts, installed, malformed, missing_hardware, missing_software
from gnomon.spec.shapes import unify
from gnomon.spec.trust import is_trusted

_MERGED = ("dims", "quality", "protocol", "training")  # tables that `extends` merges key by key
_SUFFIXES = (".yaml", ".yml", ".json")
_DEVICE = re.compile(r"(cpu|mps|(cuda|xpu)(:[0-9]{1,3})?)")


@dataclass(frozen=True, slots=True)
class Resolution:
    """A task and how it came about: which file, which version, which size, and why."""

    task: task.Task
    decisions: tuple[str, ...]


def resolve(
    target: str | Path,
    *,
    dims: Mapping[str, int] | None = None,
    dtype: str | None = None,
    mode: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    search: Sequence[Path] = (),
    host: Mapping[str, Any] | None = None,
) -> task.Task:
    """The task that `target` means: a manifest's path, a task's name (`name@constraint`), a configuration of
    transformers (`config.json`, or the folder that it is in), or `package.module:callable`. Of a task with a matrix,
    `target#2` is the second combination.

    dims: sizes by name, over those of the manifest. dtype, mode: instead of the manifest's. device: where it will run.
    trust: code beside the manifest may be named. search: further folders with manifests. host: facts of the machine as
    in `spec.require.facts`; this machine when None.
    Raises one error that lists all that is wrong: ManifestError (exit code 2), else DamagedData for a file whose
    SHA-256 differs (4), else NotRunnable for what this machine lacks (3). When nothing else is wrong it is one of
    MissingReference, VersionConflict, ReferenceCycle (all 2) and UnsatisfiedHardware (3). UnknownName when no task is
    called so.
    """
    return explain(
        target, dims=dims, dtype=dtype, mode=mode, device=device, trust=trust, search=search, host=host
    ).task  # fmt: skip


def explain(
    target: str | Path,
    *,
    dims: Mapping[str, int] | None = None,
    dtype: str | None = None,
    mode: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    search: Sequence[Path] = (),
    host: Mapping[str, Any] | None = None,
) -> Resolution:
    """As `resolve`, with every decision on the way."""
    resolver = _Resolver(trust, tuple(search), host)
    resolver.options(dtype, mode, device)
    return Resolution(resolver.assemble(target, dict(dims or {}), dtype, mode, device), tuple(resolver.decisions))


def task_spec(target: str | Path, *, trust: bool = False, search: Sequence[Path] = ()) -> TaskSpec:
    """What the manifest of a task says, merged over those that it extends; no part is followed.

    Raises ManifestError, and UnknownName when no task is called so.
    """
    resolver = _Resolver(trust, tuple(search), None)
    return resolver.extended(*resolver.opened(target))[0]


def resolve_lock(lock: Lock, *, trust: bool = False, host: Mapping[str, Any] | None = None) -> task.Task:
    """The task that a lock describes, as it is now; `check_lock` says what changed. Raises as `resolve` does."""
    return resolve(
        Path(lock.target) if Path(lock.target).is_absolute() else lock.target,
        dims=lock.dims,
        dtype=lock.dtype,
        mode=lock.mode,
        device=lock.device,
        trust=trust,
        search=[Path(folder) for folder in lock.search],
        host=host,
    )


def said(target: str | Path, *, trust: bool = False, search: Sequence[Path] = ()) -> dict[str, Any]:
    """What a task says, by aspect: 'model', 'dataset', 'software', 'hardware' and 'setting', as plain data.

    References are followed, defaults are left out, nothing is looked for on this machine. A part that is not there is
    {}. Raises as `resolve` does for what cannot be found or read.
    """
    resolver = _Resolver(trust, tuple(search), None)
    target, combination = _combination(target)
    loaded, manifest = resolver.opened(target)
    spec, origin = resolver.extended(loaded, manifest)
    places: dict[str, tuple[str | int, ...]] = {}
    if spec.matrix is not None or combination is not None:
        spec, places = resolver.combined(spec, combination, loaded)
        origin |= dict.fromkeys(places, origin.get("matrix", loaded))
    aspects: dict[str, Any] = {}
    for kind in ("Model", "Dataset", "Software", "Hardware"):
        key = kind.lower()
        place = places.get(key, ("spec", key))
        part = resolver.part(kind, getattr(spec, key), origin.get(key, loaded), place)
        aspects[key] = without_defaults(part.spec) if part is not None else {}
    resolver.stop_if_failed()
    setting = without_defaults(spec)
    aspects["setting"] = {key: value for key, value in setting.items() if key not in (*aspects, "extends", "matrix")}
    return aspects


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a task. loaded, place: where its spec stands. digest, name, version: its identity."""

    spec: Any
    loaded: Loaded
    place: tuple[str | int, ...]
    name: str
    version: str
    digest: str

    @property
    def folder(self) -> Path:
        return self.loaded.path.parent

    def where(self, key: str = "") -> str:
        """`file:line: key` of a key of this part."""
        keys: list[str | int] = [int(k) if k.isdecimal() else k for k in re.findall(r"[^.\[\]]+", key)]
        place = (*self.place, *keys)
        return f"{self.loaded.at(place)}: {Problem(place, '').where}"


@dataclass
class _Resolver:
    """Follows one task; collects what is wrong and what was decided."""

    trust: bool
    search: tuple[Path, ...]
    host: Mapping[str, Any] | None
    decisions: list[str] = field(default_factory=list)
    failures: list[tuple[type[GnomonError], str]] = field(default_factory=list)
    lock: dict[str, str] = field(default_factory=dict)

    def options(self, dtype: str | None, mode: str | None, device: str) -> None:
        for name, value, known in (
            ("dtype", dtype, get_args(task.FloatDtype)),
            ("mode", mode, get_args(task.Mode)),
        ):
            if value is not None and value not in known:
                self.fail(
                    ManifestError,
                    f"--{name}: wanted one of {', '.join(known)}, got {value!r}.{did_you_mean(value, known)}",
                )
        if not _DEVICE.fullmatch(device):
            self.fail(ManifestError, f"--device: wanted 'cpu', 'cuda', 'cuda:1', 'mps' or 'xpu', got {device!r}")

    def fail(self, kind: type[GnomonError], message: str) -> None:
        self.failures.append((kind, message))

    def decide(self, text: str) -> None:
        self.decisions.append(text)

    def stop_if_failed(self) -> None:
        """One error for all failures; its class is that of the gravest."""
        for kind in (ManifestError, DamagedData, NotRunnable):
            found = {failed for failed, _ in self.failures if issubclass(failed, kind)}
            if found:
                one = found.pop() if len(found) == 1 else kind
                raise one(show(list(dict.fromkeys(message for _, message in self.failures))))

    # -- manifests -----------------------------------------------------------------------------------------------

    def opened(self, target: str | Path) -> tuple[Loaded, Manifest]:
        text = str(target)
        path = Path(target)
        if (path / "config.json").is_file():  # what a download of a model looks like
            path = path / "config.json"
        if _is_file(target):
            loaded = load(path)
            if isinstance(loaded.document, Mapping) and "apiVersion" not in loaded.document and path.suffix == ".json":
                loaded = replace(loaded, document=adopt.from_huggingface(loaded.document, path), lines={})
                self.decide(f"task: a configuration of transformers, {path}")
            else:
                self.decide(f"task: the file {path}")
        elif TARGET.holds(text):
            document = adopt.from_callable(text, Path())
            loaded = Loaded(Path(text), "", document, {})
            self.decide(f"task: the callable {text}")
        else:
            if not REFERENCE.holds(text):
                known = task_names(self.search)
                raise UnknownName(
                    f"wanted a task's name, a manifest's path or 'package.module:callable', got {text[:80]!r}."
                    f"{did_you_mean(text, known)} Known tasks: {', '.join(known)}"
                )
            found = find("Task", text, None, self.search)
            loaded = found.loaded
            self.decide(f"task: {found.manifest.identity} from {found.path}, {found.why}")
        manifest = loaded.manifest()
        if manifest.kind != "Task":
            raise ManifestError(f"{loaded.at(('kind',))}: kind: wanted a Task, got a {manifest.kind}")
        return loaded, manifest

    def follow(self, kind: str, part: Reference | PartFile, folder: Path, where: str) -> Found:
        """The manifest that a reference or a path means. Raises ManifestError with the place that refers."""
        try:
            if isinstance(part, Reference):
                return find(kind, part.ref, folder, self.search)
            loaded = load(inside(folder, part.file))
            manifest = loaded.manifest()
        except GnomonError as error:
            first, *rest = str(error).splitlines()
            told = type(error) if isinstance(error, ManifestError) else ManifestError
            if isinstance(error, UnknownName):
                told = MissingReference
            raise told("\n".join([f"{where}: {first}", *rest])) from error
        if manifest.kind != kind:
            raise ManifestError(f"{where}: wanted a {kind}, {part.file} is a {manifest.kind}")
        return Found(manifest, loaded, "named by its path")

    def extended(self, loaded: Loaded, manifest: Manifest) -> tuple[TaskSpec, dict[str, Loaded]]:
        """The task's spec over those that it extends, and the file that each of its keys comes from."""
        chain, here, current = [loaded.path.resolve()], loaded, manifest
        document: dict[str, Any] = dict(loaded.document["spec"])
        origin = dict.fromkeys(document, loaded)
        while current.spec.extends is not None:
            where = f"{here.at(('spec', 'extends'))}: spec.extends"
            found = self.follow("Task", current.spec.extends, here.path.parent, where)
            if found.path.resolve() in chain:
                names = " -> ".join(p.name for p in [*chain, found.path])
                raise ReferenceCycle(f"{where}: a cycle: {names}")
            self.decide(f"extends: {found.manifest.identity} from {found.path}, {found.why}")
            self.lock[f"extends:{found.manifest.metadata.name}"] = found.manifest.digest
            chain.append(found.path.resolve())
            here, current = found.loaded, found.manifest
            for key, value in here.document["spec"].items():
                if key in _MERGED and isinstance(document.get(key), Mapping):
                    document[key] = {**value, **document[key]}
                elif key not in document:
                    document[key], origin[key] = value, here
        document.pop("extends", None)
        if len(chain) == 1:
            return manifest.spec, origin
        whole = {**loaded.document, "spec": document}
        spec: TaskSpec = replace(loaded, document=whole).manifest().spec
        return spec, origin

    def combined(
        self, spec: TaskSpec, number: int | None, loaded: Loaded
    ) -> tuple[TaskSpec, dict[str, tuple[str | int, ...]]]:
        """The task that one combination of its matrix is, and where each part that it takes stands."""
        where = f"{loaded.at(('spec', 'matrix'))}: spec.matrix"
        if spec.matrix is None:
            raise ManifestError(f"{loaded.path}: the task has no matrix, so no combination {number}")
        choices = combinations(spec.matrix)
        if number is None:
            raise ManifestError(
                f"{where}: {len(choices)} combinations, and one is wanted: name it as {loaded.path}#1. "
                "gnomon resolve --matrix lists them"
            )
        if not 1 <= number <= len(choices):
            raise ManifestError(f"{where}: wanted a combination from 1 to {len(choices)}, got {number}")
        self.decide(f"matrix: combination {number} of {len(choices)}")
        return chosen(spec, choices[number - 1])

    def part(self, kind: str, value: Any, loaded: Loaded, place: tuple[str | int, ...]) -> _Part | None:
        """A part of the task in `loaded`; an inline one goes by the name and version of that task."""
        key = kind.lower()
        if value is None:
            return None
        if isinstance(value, Reference | PartFile):
            where = f"{loaded.at(place)}: {Problem(place, '').where}"
            try:
                found = self.follow(kind, value, loaded.path.parent, where)
            except ManifestError as error:
                self.fail(type(error), str(error))
                return None
            self.decide(f"{key}: {found.manifest.identity} from {found.path}, {found.why}")
            own = found.manifest.metadata
            result = _Part(found.manifest.spec, found.loaded, ("spec",), own.name, own.version, found.manifest.digest)
        else:
            self.decide(f"{key}: inline in {loaded.path}")
            name, version = (loaded.document["metadata"][k] for k in ("name", "version"))
            result = _Part(value, loaded, place, name, version, spec_digest(kind, name, version, value))
        self.lock[key] = result.digest
        return result

    # -- the task ------------------------------------------------------------------------------------------------

    def assemble(
        self, target: str | Path, overrides: dict[str, int], dtype: str | None, mode: str | None, device: str
    ) -> task.Task:
        target, combination = _combination(target)
        loaded, manifest = self.opened(target)
        meta = manifest.metadata
        self.lock["task"] = manifest.digest
        spec, origin = self.extended(loaded, manifest)
        places: dict[str, tuple[str | int, ...]] = {}
        if spec.matrix is not None or combination is not None:
            spec, places = self.combined(spec, combination, loaded)
            origin |= dict.fromkeys(places, origin.get("matrix", loaded))
            self.lock["task"] = spec_digest("Task", meta.name, meta.version, spec)

        def part(kind: str) -> _Part | None:
            key = kind.lower()
            return self.part(kind, getattr(spec, key), origin.get(key, loaded), places.get(key, ("spec", key)))

        model, dataset, software, hardware = part("Model"), part("Dataset"), part("Software"), part("Hardware")
        if model is None:  # nothing can be said about sizes without it
            self.stop_if_failed()
            raise ManifestError(f"{loaded.path}: spec.model: missing in this task and in all that it extends")
        sizes = self.sizes(loaded, spec, model, dataset, overrides)
        self.requirements(software, hardware)
        chosen_dtype: Any = dtype or spec.dtype
        resolved_model = self.model(model, sizes, spec.dtype, chosen_dtype)
        chosen_mode: Any = mode or spec.mode
        resolved_dataset = self.dataset(dataset, chosen_mode)
        self.code(loaded, origin, spec)
        self.stop_if_failed()
        env = dict(software.spec.env) if software else {}
        exact = (software.spec if software else SoftwareSpec()).determinism
        settings = {"dims": sizes, "dtype": chosen_dtype, "mode": chosen_mode}
        return task.Task(
            name=meta.name,
            version=meta.version,
            description=meta.description,
            digest=digest({"lock": self.lock, **settings}),
            lock=dict(sorted(self.lock.items())),
            mode=chosen_mode,
            dims=sizes,
            dtype=chosen_dtype,
            device=device,
            threads=spec.threads,
            seed=spec.seed,
            model=resolved_model,
            dataset=resolved_dataset,
            training=(spec.training or task.Training()) if chosen_mode == "training" else spec.training,
            quality=spec.quality,
            protocol=spec.protocol,
            env=env,
            folder=str(loaded.path.parent.resolve()),
            trusted=self.trust,
            deterministic=exact.deterministic_algorithms,
            tf32=exact.tf32,
            scenario=spec.scenario,
            trace_level=spec.trace_level,
            metrics=spec.metrics,
            named=_named(target, loaded) + (f"#{combination}" if combination is not None else ""),
            search=tuple(str(folder.resolve()) for folder in self.search),
        )

    def sizes(
        self, loaded: Loaded, spec: TaskSpec, model: _Part, dataset: _Part | None, overrides: dict[str, int]
    ) -> dict[str, int]:
        """A size for every dimension: asked for, else of the task, else of the model, else solved from the dataset."""
        inputs: dict[str, Input] = {i.name: i for i in model.spec.inputs}
        used = {axis for i in inputs.values() for axis in i.shape if isinstance(axis, str)}
        used |= {bound for i in inputs.values() for bound in (i.low, i.high) if isinstance(bound, str)}
        known = {**model.spec.dims, **spec.dims}
        names = sorted({*used, *known})
        for name, size in overrides.items():
            if name not in names and inputs:  # a bare callable without declared inputs takes any size
                came = f"{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}"
                self.fail(ManifestError, f"{loaded.path}: the task has no dimension {name!r}.{came}")
            elif isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
                self.fail(ManifestError, f"dimension {name}: wanted a size from 1 to {LARGEST_SIZE:,}, got {size!r}")
        sizes = {**known, **overrides}
        if dataset is not None:
            sizes = self.agree(inputs, dataset, sizes)
        for name in sorted(used - sizes.keys()):
            self.fail(
                ManifestError,
                f"{loaded.path}: dimension {name!r} has no size; give it in spec.dims or with --dim {name}=SIZE",
            )
        for name, largest in model.spec.max_dims.items():
            if sizes.get(name, 0) > largest:
                where = model.where(f"max_dims.{name}")
                self.fail(ManifestError, f"{where}: the model takes {name} up to {largest}, got {sizes[name]}")
        for name in sorted(sizes):
            came = (
                "asked for"
                if name in overrides
                else "task"
                if name in spec.dims
                else "model"
                if name in known
                else "dataset"
            )
            self.decide(f"dimension {name} = {sizes[name]} ({came})")
        return sizes

    def agree(self, inputs: Mapping[str, Input], dataset: _Part, sizes: dict[str, int]) -> dict[str, int]:
        provides = dataset.spec.provides
        for name, given in provides.items():
            where = dataset.where(f"provides.{name}")
            wanted = inputs.get(name)
            if wanted is None:
                if inputs:
                    near = did_you_mean(name, inputs)
                    self.fail(
                        ManifestError, f"{where}: the model has no input {name!r}.{near} Known: {', '.join(inputs)}"
                    )
                continue
            if wanted.dtype != given.dtype:
                self.fail(ManifestError, f"{where}: the model wants {wanted.dtype}, the dataset provides {given.dtype}")
            for key in ("layout", "semantics"):
                takes, gives = getattr(wanted, key), getattr(given, key)
                if takes and gives and takes != gives:
                    self.fail(
                        ManifestError, f"{where}.{key}: the model wants {takes!r}, the dataset provides {gives!r}"
                    )
            try:
                sizes = unify(wanted.shape, given.shape, sizes)
            except ValueError as error:
                self.fail(ManifestError, f"{where}: {error}")
        if provides:
            for name in inputs.keys() - provides.keys():
                self.fail(ManifestError, f"{dataset.where('provides')}: the model's input {name!r} is not provided")
        return sizes

    def requirements(self, software: _Part | None, hardware: _Part | None) -> None:
        if software is not None:
            wrong = malformed(software.spec, self.trust)
            self.failures += [(ManifestError, f"{software.where(key)}: {text}") for key, text in wrong]
            if not wrong:
                missing = missing_software(software.spec)
                self.failures += [(NotRunnable, f"{software.where(key)}: {text}") for key, text in missing]
                if not missing:
                    self.decide("software: everything that it names is installed")
        if hardware is not None and hardware.spec != HardwareSpec():
            missing = missing_hardware(hardware.spec, self.host if self.host is not None else _this_host())
            self.failures += [(UnsatisfiedHardware, f"{hardware.where(key)}: {text}") for key, text in missing]
            if not missing:
                self.decide("hardware: this machine meets every predicate")

    def model(self, part: _Part, sizes: Mapping[str, int], declared: str, dtype: Any) -> task.Model:
        spec: ModelSpec = part.spec
        target = spec.target or ""
        if spec.source == "python":
            self.named_code(target, part, "target")
        elif spec.source == "huggingface" and installed("transformers") is None:
            self.fail(NotRunnable, f"{part.where('source')}: transformers is not installed: pip install transformers")
        elif spec.source == "external":
            self.fail(
                NotRunnable,
                f"{part.where('source')}: the model is only described ({target[:200]}); Gnomon runs python, "
                "huggingface and onnx. Convert it to ONNX and pin the file, or name code that builds it",
            )
        elif spec.source == "onnx" and installed("onnxruntime") is None:
            self.fail(NotRunnable, f"{part.where('source')}: onnxruntime is not installed: pip install onnxruntime")
        weights = self.pinned(spec.weights, part, "weights", "model.weights") if spec.weights else None
        if spec.source == "onnx":
            target, weights = weights or "", None
        return task.Model(
            name=part.name,
            version=part.version,
            source=cast(Any, spec.source),  # an external one has failed above
            target=target,
            arguments={k: self.argument(v, sizes, part, k) for k, v in spec.arguments.items()},
            inputs=tuple(self.tensor(i, sizes, declared, dtype) for i in spec.inputs),
            seed=spec.seed,
            weights=weights,
            weights_sha256=spec.weights.sha256 if spec.weights else None,
            outputs=tuple(replace(one, dtype=dtype if one.dtype == declared else one.dtype) for one in spec.outputs),
            stages=self.stages(spec, sizes, part),
            inline=self.holder(part) if any(one.code for one in _stages(spec).values()) else None,
        )

    def stages(self, spec: ModelSpec, sizes: Mapping[str, int], part: _Part) -> task.Stages:
        """The code around the model, located or admitted, with its arguments' sizes."""
        found = {}
        for name, stage in _stages(spec).items():
            key = f"stages.{name}"
            if stage.target is not None:
                self.named_code(stage.target, part, f"{key}.target")
            else:
                self.inline_code(str(stage.code), name, part, f"{key}.code")
            arguments = {k: self.argument(v, sizes, part, k, f"{key}.arguments") for k, v in stage.arguments.items()}
            found[name] = replace(stage, arguments=arguments)
        return task.Stages(**found)

    def holder(self, part: _Part) -> str:
        """Digest of the manifest in which a part stands in full."""
        return part.loaded.manifest().digest

    def inline_code(self, code: str, function: str, part: _Part, key: str) -> None:
        """Admits code in a manifest that is on the trust list, or with --trust. Reads it, runs none of it."""
        wrong = why_not_inline(code, function)
        digest = self.holder(part)
        if wrong is not None:
            self.fail(ManifestError, f"{part.where(key)}: {wrong}")
        elif not self.trust and not is_trusted(digest):
            self.fail(
                ManifestError,
                f"{part.where(key)}: code inside a manifest runs only when you trust this very manifest ({digest}). "
                f"Read it, then: gnomon trust {part.loaded.path}",
            )
        else:
            self.decide(f"code: {key} inside {part.loaded.path}, {'--trust' if self.trust else 'on the trust list'}")

    def argument(self, value: Any, sizes: Mapping[str, int], part: _Part, key: str, table: str = "arguments") -> Any:
        """'$L' is the size of the dimension L, '$$' a dollar sign."""
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value.startswith("$$"):
            return value[1:]
        if value[1:] not in sizes:
            near = did_you_mean(value[1:], sizes)
            known = ", ".join(sizes)
            self.fail(
                ManifestError, f"{part.where(f'{table}.{key}')}: no dimension {value[1:]!r}.{near} Known: {known}"
            )
        return sizes.get(value[1:])

    def tensor(self, given: Input, sizes: Mapping[str, int], declared: str, dtype: Any) -> task.Tensor:
        """Floating inputs in the task's own dtype follow the dtype that is asked for."""
        floating = given.dtype in get_args(task.FloatDtype)
        fill = given.fill or ("normal" if floating else "ones" if given.dtype == "bool" else "integers")
        low, high = (float(sizes.get(b, 0)) if isinstance(b, str) else b for b in (given.low, given.high))
        kind = dtype if given.dtype == declared else given.dtype
        return task.Tensor(given.name, kind, given.shape, fill, low, high, given.layout, given.semantics)

    def dataset(self, part: _Part | None, mode: str) -> task.Dataset | None:
        if part is None:
            return None
        spec: DatasetSpec = part.spec
        if spec.examples is not None:
            self.named_code(spec.examples, part, "examples")
        splits = {name: self.split(name, one, part) for name, one in sorted(spec.splits.items())}
        feeds = spec.feeds if spec.examples is None else None
        if spec.examples is None and feeds is None:
            usual = "train" if mode == "training" else "test"
            feeds = usual if usual in splits else next(iter(splits)) if len(splits) == 1 else None
            if feeds is None:
                self.fail(
                    ManifestError,
                    f"{part.where('splits')}: which split feeds the model? There is no {usual!r} among "
                    f"{', '.join(splits)}; name one in 'feeds'",
                )
            else:
                self.decide(f"dataset: batches are rows of the split {feeds!r}")
        files = {n: self.pinned(s, part, f"files.{n}", f"dataset.files.{n}") for n, s in sorted(spec.files.items())}
        found = {n: p for n, p in files.items() if p is not None}
        return task.Dataset(part.name, part.version, spec.examples, found, splits, feeds)

    def split(self, name: str, spec: SplitSpec, part: _Part) -> task.Split:
        """One split: its file pinned, its generator located, its address looked up in the cache."""
        key, path, source = f"splits.{name}.source", None, spec.source
        if source.generate is not None:
            self.named_code(source.generate, part, f"{key}.generate")
        elif source.url is not None:
            path = self.cached(source.url, str(spec.sha256), part, f"{key}.url", f"dataset.splits.{name}")
        else:
            pinned = Source(str(spec.sha256), source.file, source.package)
            path = self.pinned(pinned, part, key, f"dataset.splits.{name}")
        return task.Split(path, source.generate, source.arguments, source.seed, spec.sha256, spec.count, spec.schema)

    def cached(self, url: str, sha256: str, part: _Part, key: str, lock_key: str) -> str | None:
        """The file of an address when it lies in the cache with the right bytes. Nothing is fetched."""
        place = cache_file(sha256)
        where = part.where(key)
        if not place.is_file():
            self.fail(
                NotRunnable,
                f"{where}: {url} is not in the local cache, and Gnomon fetches nothing. Put it at {place}",
            )
            return None
        found = file_digest(place)
        if found != f"sha256:{sha256}":
            self.fail(
                DamagedData,
                f"{where}: wanted SHA-256 {sha256}, {place} has {found.removeprefix('sha256:')}; fetch it anew",
            )
            return None
        self.lock[lock_key] = found
        self.decide(f"{lock_key}: {place}, SHA-256 as stated, for {url}")
        return str(place)

    def code(self, loaded: Loaded, origin: Mapping[str, Loaded], spec: TaskSpec) -> None:
        """Callables that the task itself names."""
        if spec.quality.evaluate is not None:
            home = origin.get("quality", loaded)
            self.named_code(spec.quality.evaluate, _Part(None, home, ("spec", "quality"), "", "", ""), "evaluate")
        if spec.training is not None and ":" in spec.training.loss:
            home = origin.get("training", loaded)
            self.named_code(spec.training.loss, _Part(None, home, ("spec", "training"), "", "", ""), "loss")

    def named_code(self, target: str, part: _Part, key: str) -> None:
        try:
            owner = locate(target, part.folder, self.trust)
        except ManifestError as error:
            self.fail(ManifestError, f"{part.where(key)}: {error}")
        else:
            self.decide(f"code: {target}, {owner}")

    def pinned(self, source: Source, part: _Part, key: str, lock_key: str) -> str | None:
        """Absolute path of a file whose bytes have the stated SHA-256; None when it has not or is not there."""
        where = part.where(key)
        try:
            path = inside(part.folder, source.file) if source.file is not None else _package_file(str(source.package))
            found = file_digest(path)
        except ManifestError as error:
            self.fail(ManifestError, f"{where}: {error}")
        except NotRunnable as error:
            self.fail(NotRunnable, f"{where}: {error}")
        except OSError as error:
            self.fail(NotRunnable, f"{where}: {source.file or source.package} cannot be read: {error.strerror}")
        else:
            if found != f"sha256:{source.sha256}":
                self.fail(
                    DamagedData, f"{where}: wanted SHA-256 {source.sha256}, {path} has {found.removeprefix('sha256:')}"
                )
                return None
            self.lock[lock_key] = found
            self.decide(f"{lock_key}: {path}, SHA-256 as stated")
            return str(path.resolve())
        return None


def _package_file(text: str) -> Path:
    """The file that 'distribution/path/inside' means, found without importing the package."""
    name, _, inner = text.partition("/")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise NotRunnable(f"the package {name!r} is not installed: pip install {name}") from error
    files = [str(f) for f in distribution.files or ()]
    if files and inner not in files:
        raise ManifestError(f"{name} {distribution.version} has no file {inner!r}.{did_you_mean(inner, files)}")
    return inside(Path(str(distribution.locate_file(""))), inner)


def _named(target: str | Path, loaded: Loaded) -> str:
    """What resolves into the same task from any folder: a name and a callable as they are, a file by its path."""
    return str(loaded.path.resolve()) if _is_file(target) else str(target)


def _is_file(target: str | Path) -> bool:
    path = Path(target)
    return isinstance(target, Path) or path.suffix in _SUFFIXES or path.is_dir() or "/" in str(target)


def _combination(target: str | Path) -> tuple[str | Path, int | None]:
    """'task.yaml#2' as the target and the number of a combination of its matrix."""
    match = re.fullmatch(r"(.+)#([0-9]{1,6})", str(target))
    if match is None or Path(target).exists():
        return target, None
    return type(target)(match[1]), int(match[2])


def cache_file(sha256: str) -> Path:
    """Where a file that was fetched by its SHA-256 lies in the Gnomon home."""
    return home() / "data" / sha256


def _stages(spec: ModelSpec) -> dict[str, task.Stage]:
    pairs = (("preprocess", spec.stages.preprocess), ("postprocess", spec.stages.postprocess))
    return {name: stage for name, stage in pairs if stage is not None}


def _this_host() -> Mapping[str, Any]:
    from gnomon.devices.host import host

    return facts(host())
