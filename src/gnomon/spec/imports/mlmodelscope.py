"""Model manifests of ML ModelScope's Go agents as documents of Gnomon: read as data, nothing run, nothing fetched.

The format: Dakkak et al., arXiv:1811.09737, and the manifests that its agents ship. What it leaves out has the meaning
that the agents gave it: float32, layout HWC, mode RGB, mean 0, scale 1; `dimensions` are channels, height, width
whatever the layout, without the batch; a framework's version is a constraint; checksums are MD5.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from gnomon.core.errors import ManifestError, did_you_mean
from gnomon.core.records import Problem, StructureError
from gnomon.spec.grammar import INPUT, LARGEST_SIZE, VERSION
from gnomon.spec.imports.assets import Assets, Found
from gnomon.spec.imports.back import CODE, remaining
from gnomon.spec.imports.constraint import specifier
from gnomon.spec.imports.report import Imported, Remark
from gnomon.spec.imports.templates import fill, has_template
from gnomon.spec.imports.text import Messy, leaves, read
from gnomon.spec.load import Loaded, Place, show
from gnomon.spec.manifest import API_VERSION
from gnomon.spec.manifest import read as read_manifest

KEYS = (
    "name", "version", "framework", "container", "description", "references", "license", "inputs", "output", "outputs",
    "model", "attributes", "hidden",
)  # fmt: skip
CODE_KEYS = (
    "before_preprocess", "preprocess", "after_preprocess", "before_postprocess", "postprocess", "after_postprocess",
)  # fmt: skip
DTYPES = {
    "float32": "float32", "float": "float32", "single": "float32", "fp32": "float32", "float64": "float64",
    "double": "float64", "float16": "float16", "half": "float16", "fp16": "float16", "bfloat16": "bfloat16",
    "int64": "int64", "long": "int64", "int32": "int32", "int": "int32", "int16": "int16", "int8": "int8",
    "uint8": "uint8", "byte": "uint8", "bool": "bool",
}  # fmt: skip
PACKAGES = {"onnxruntime": "onnxruntime", "pytorch": "torch", "tensorflow": "tensorflow", "mxnet": "mxnet"}
FORMATS = {
    ".onnx": "ONNX graph", ".pt": "TorchScript program", ".pth": "PyTorch pickle", ".pb": "TensorFlow graph",
    ".tflite": "TensorFlow Lite model", ".json": "MXNet symbol", ".prototxt": "Caffe network",
    ".uff": "TensorRT network",
}  # fmt: skip
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "GRAYSCALE": 1, "L": 1, "RGBA": 4}


def import_bytes(path: Path, data: bytes, stem: str | None = None, assets: Assets | None = None) -> Imported:
    """The manifest in `data` as documents that refer to each other as `<stem>.model.yaml` and so on.

    path: for messages. stem: the file's own when None. assets: where graph files are looked for; None for nowhere.
    Raises ManifestError with `file:line: key: what` when it is no manifest of ML ModelScope or an asset is damaged.
    """
    messy = read(path, data)
    document = messy.loaded.document
    if not isinstance(document, Mapping):
        what = "a list" if isinstance(document, list) else f"only {document!r:.60}"
        raise ManifestError(
            f"{path}:1: wanted a manifest of ML ModelScope with the keys name, inputs, model ...; got {what}"
        )
    return _Importer(messy, path.stem if stem is None else stem, assets).run()


def meaning(path: Path, data: bytes) -> dict[str, Any]:
    """What a manifest says, as `to_mlmodelscope` gives it back: plain data, versions as text, without inline code."""
    return _meaning(read(path, data).loaded.document)


def _meaning(document: Mapping[str, Any]) -> dict[str, Any]:
    said = {str(key): value for key, value in document.items() if not _is_code(key, value)}
    if "version" in said:
        said["version"] = _written(said["version"])
    if isinstance(said.get("framework"), Mapping) and "version" in said["framework"]:
        said["framework"] = {**said["framework"], "version": _written(said["framework"]["version"])}
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def _is_code(key: Any, value: Any) -> bool:
    return key in CODE_KEYS and value not in (None, "")


def _written(value: Any) -> Any:
    """A number as its text: the version 1.120 is not 1.12."""
    return getattr(value, "text", value)


@dataclass
class _Importer:
    """One manifest on its way."""

    messy: Messy
    stem: str
    assets: Assets | None
    remarks: list[Remark] = field(default_factory=list)
    done: set[Place] = field(default_factory=set)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def loaded(self) -> Loaded:
        return self.messy.loaded

    def run(self) -> Imported:
        for mended in self.messy.mended:
            self.remarks.append(Remark(_dotted(mended.place), mended.line, "mended", note=mended.note))
        original = self.loaded.document
        self.document, filled = fill(original, CODE_KEYS)
        for place, before, after in filled:
            self.say(place, "mended", note=f"{before} filled in as {after!r}; nothing was evaluated", done=False)
        metadata = self.metadata()
        model = self.model()
        dims = {"B": 1} if any("B" in one["shape"] for one in model["inputs"]) else {}
        documents = self.documents(metadata, model, dims)
        labels = remaining(_meaning(original), documents) | self.code(model)
        if labels:
            documents["model"]["metadata"]["labels"] = labels
        self.rest()
        self.check(documents)
        lossless = not any(label.startswith(CODE) for label in labels)
        why = None if model["source"] == "onnx" else f"the model is only described: {model['target']}"
        open_dims = sorted({a for i in model["inputs"] for a in i["shape"] if isinstance(a, str)} - dims.keys())
        if why is None and open_dims:
            why = "sizes are missing: " + " ".join(f"--dim {name}=..." for name in open_dims)
        remarks = tuple(sorted(dict.fromkeys(self.remarks), key=lambda remark: remark.line))
        return Imported(str(self.loaded.path), metadata["name"], documents, remarks, lossless, why, self.files)

    # -- remarks -------------------------------------------------------------------------------------------------

    def say(self, place: Place, outcome: Any, to: str = "", note: str = "", done: bool = True) -> None:
        self.remarks.append(Remark(_dotted(place), self.loaded.line(place), outcome, to, note))
        if done:
            self.done.add(place)

    def error(self, place: Place, message: str) -> ManifestError:
        return self.loaded.error([Problem(place, message)])

    def get(self, *place: str | int) -> Any:
        """The value at a place; None where there is none."""
        value = self.document
        for part in place:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def text(self, *place: str | int) -> str | None:
        """A text at a place, a number as it is written; None, with a remark, for anything else."""
        value = _written(self.get(*place))
        if value is None or value == "":
            return None
        if isinstance(value, bool | list | Mapping):
            self.say(place, "refused", note=f"wanted text, got {_what(value)}")
            return None
        if has_template(value):
            self.say(place, "refused", note=f"template text with nothing to fill it in: {value[:80]}; write the value")
            return None
        return str(value)

    def table(self, *place: str | int) -> bool:
        """Is there a table? With a remark when there is something else."""
        value = self.get(*place)
        if value is not None and not isinstance(value, Mapping):
            self.say(place, "refused", note=f"wanted a table, got {_what(value)}")
        return isinstance(value, Mapping)

    def rest(self) -> None:
        """A remark for every value that has none yet: it is kept in a label."""
        for place, value in leaves(self.document):
            if any(place[: len(done)] == done or done[: len(place)] == place for done in self.done):
                continue
            note = "provenance" if value is not None else "nothing is stated"
            if place and place[0] not in (*KEYS, *CODE_KEYS):
                note = f"unknown key.{did_you_mean(str(place[0]), (*KEYS, *CODE_KEYS))}"
            elif has_template(value):
                note = "template text with nothing to fill it in; kept as it is"
            self.say(place, "kept", "metadata.labels", note)

    # -- who it is -----------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        name = self.text("name")
        if name is None:
            near = did_you_mean("name", [str(key) for key in self.document if key not in KEYS])
            raise self.error(("name",), f"wanted the model's name; it is missing or no text.{near}")
        slug = _slug(name)
        if not slug:
            raise self.error(("name",), f"wanted a name with letters a-z or digits, got {name[:60]!r}")
        if not any(key in self.document for key in ("inputs", "model", "framework", *CODE_KEYS, "output")):
            raise self.error(
                (), "this is no manifest of ML ModelScope: it has none of inputs, model, framework, output"
            )
        self.say(("name",), "mapped", "metadata.name", "" if slug == name else f"as {slug}")
        metadata: dict[str, Any] = {"name": slug, "version": self.version()}
        for key in ("description", "license"):
            text = self.text(key)
            if text is not None:
                metadata[key] = text
                self.say((key,), "mapped", f"metadata.{key}")
        references = self.get("references")
        if isinstance(references, str):
            references = [references]
        if isinstance(references, list) and all(isinstance(one, str) for one in references):
            metadata["references"] = references
            self.say(("references",), "mapped", "metadata.references")
        elif references is not None:
            self.say(("references",), "refused", note=f"wanted a list of texts, got {_what(references)}")
        return metadata

    def version(self) -> str:
        written = self.text("version")
        if written is None or written == "latest":
            self.say(("version",), "unmapped", "metadata.version", f"{written or 'none'} is stated; taken as 0")
            return "0"
        version = written.strip()
        if not VERSION.holds(version):
            try:
                version = Version(version).public
            except InvalidVersion:
                version = ""
        if not VERSION.holds(version):
            self.say(("version",), "unmapped", "metadata.version", f"{written[:40]!r} is no version; taken as 0")
            return "0"
        self.say(("version",), "mapped", "metadata.version", "" if version == written else f"as {version}")
        return version

    def software(self) -> list[str] | None:
        """The requirement that the framework is, when it is a package."""
        if not self.table("framework"):
            return None
        name, version = self.text("framework", "name"), self.text("framework", "version")
        if name is None:
            return None
        package = PACKAGES.get(re.sub(r"[^a-z0-9]", "", name.lower()))
        if package is None:
            self.say(("framework",), "unmapped", note=f"{name} is no Python package that we know; kept in labels")
            return None
        self.say(("framework", "name"), "mapped", "software: spec.packages", f"as the package {package}")
        found = specifier(version or "")
        if found is None:
            self.say(
                ("framework", "version"), "unmapped", note=f"{version!r} is no range of PEP 440; any version is taken"
            )
        elif version is not None:
            note = f"as {package}{found}; the task does not ask for it, so that it runs with what is installed"
            self.say(("framework", "version"), "mapped", "software: spec.packages", note)
        return [package + (found or "")]

    # -- the model -----------------------------------------------------------------------------------------------

    def model(self) -> dict[str, Any]:
        """The model's spec."""
        inputs = self.inputs()
        if not self.table("model"):
            self.say(("model",), "unmapped", note="no file is stated; the model is only described")
            return {"source": "external", "target": "nothing is stated", "inputs": inputs}
        graph = self.text("model", "graph_path")
        where = self.url()
        suffix = Path(graph.split("?")[0]).suffix.lower() if graph else ""
        form = FORMATS.get(suffix, "file")
        spec: dict[str, Any] = {"source": "external", "target": f"{form}, {where}", "inputs": inputs}
        onnx = suffix == ".onnx"
        found = self.asset(graph) if onnx and graph else None
        if found is not None:
            spec = {"source": "onnx", "weights": {"file": f"./{found.name}", "sha256": found.sha256}}
            spec["inputs"] = self.graph_inputs(found, inputs)
            self.say(("model", "graph_path"), "mapped", "model: spec.weights", f"{found.path}, {found.how}")
            return spec
        spec["arguments"] = {
            key: f"${value}" if isinstance(value, str) and value.startswith("$") else value
            for key, value in json.loads(json.dumps(self.get("model"))).items()
            if key.isidentifier() and key.isascii()
        }
        for key in spec["arguments"]:
            self.say(("model", key), "mapped", f"model: spec.arguments.{key}")
        how = (
            "fetch it and import again with --assets FOLDER: its MD5 is checked and it is pinned by SHA-256"
            if onnx
            else "Gnomon runs ONNX: convert it, or write a manifest with source python"
        )
        self.say(("model",), "unmapped", "model: spec.source external", f"{form} that is not here; {how}", done=False)
        return spec

    def url(self) -> str:
        graph, base = self.text("model", "graph_path"), self.text("model", "base_url")
        if graph is None:
            return base or "nowhere stated"
        if base is None or re.match(r"[a-z0-9]+://", graph):
            return graph
        return f"{graph} in {base}" if self.get("model", "is_archive") is True else f"{base.rstrip('/')}/{graph}"

    def asset(self, graph: str) -> Found | None:
        """The graph's file among the assets; None when it is not there."""
        if self.assets is None:
            return None
        place: Place = ("model", "graph_path")
        archive = self.get("model", "is_archive") is True
        md5 = None if archive else self.text("model", "graph_checksum")
        try:
            found = self.assets.find(graph.split("?")[0].rsplit("/", 1)[-1], md5)
        except ManifestError as error:
            raise self.error(place, str(error)) from error
        if found is not None:
            self.files[found.name] = found.path
            if archive:
                self.say(("model", "graph_checksum"), "unmapped", note="the MD5 is that of the archive; not compared")
        return found

    def graph_inputs(self, found: Found, declared: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the graph itself takes, with what the manifest adds: layout, ranges and names of dimensions."""
        result = []
        for i, put in enumerate(found.graph.inputs):
            like = next((one for one in declared if one["name"] == put.name), None)
            like = like or (declared[i] if len(declared) == len(found.graph.inputs) else None)
            if put.dtype is None or not INPUT.holds(put.name):
                what = f"its input {put.name!r} has a type or a name that Gnomon does not know"
                raise self.error(("model", "graph_path"), f"{found.path}: {what}")
            shape = put.symbolic(like["shape"] if like and len(like["shape"]) == len(put.shape) else None)
            one: dict[str, Any] = {"name": put.name, "dtype": put.dtype, "shape": shape}
            if like is not None:
                one |= {key: like[key] for key in ("layout", "semantics", "high") if key in like and len(shape) == 4}
                if put.dtype != like["dtype"] or _differ(shape, like["shape"]):
                    note = (
                        f"{like['name']}: stated as {like['dtype']} {like['shape']}; the graph says {put.dtype} {shape}"
                    )
                    self.say(("inputs",), "mended", note=note, done=False)
            result.append(one)
        return result

    # -- inputs --------------------------------------------------------------------------------------------------

    def inputs(self) -> list[dict[str, Any]]:
        given = self.get("inputs")
        if given is None:
            self.say(("inputs",), "unmapped", note="none are stated; write spec.inputs of the model")
            return []
        if isinstance(given, Mapping | str):
            self.say(("inputs",), "mended", note="one input that stands outside a list", done=False)
            found = self.one_input(("inputs",), 0)
            return [found] if found is not None else []
        if not isinstance(given, list):
            self.say(("inputs",), "refused", note=f"wanted a list of tables, got {_what(given)}")
            return []
        found_inputs: list[dict[str, Any]] = []
        for i in range(len(given)):
            one = self.one_input(("inputs", i), i)
            if one is None:
                continue
            if any(one["name"] == other["name"] for other in found_inputs):
                self.say(("inputs", i), "refused", note=f"a second input is called {one['name']!r}")
            else:
                found_inputs.append(one)
        return found_inputs

    def one_input(self, place: Place, index: int) -> dict[str, Any] | None:
        if isinstance(self.get(*place), str):  # the shorthand: only its type
            kind, inner = self.text(*place), False
        elif self.table(*place):
            kind = self.text(*place, "type") if self.get(*place, "type") is not None else None
            inner = self.get(*place, "parameters") is not None and self.table(*place, "parameters")
        else:
            return None
        under = (*place, "parameters")
        image = kind is not None and kind.lower() in ("image", "images")
        stated = self.get(*under, "dimensions") if inner else None
        layout, mode = ("HWC", "RGB")
        if image and inner:
            layout = self.word((*under, "layout"), ("HWC", "CHW"), "HWC")
            mode = self.word((*under, "color_mode"), tuple(CHANNELS), "RGB")
        shape = self.shape(under, stated, image, layout, CHANNELS[mode])
        dtype = self.dtype((*under, "element_type")) if inner else "float32"
        if shape is None or dtype is None:
            if shape is None:
                why = f"{kind or 'an input'} without a shape; write it into spec.inputs of the model"
                self.say(place, "unmapped", note=why, done=False)
            return None
        one: dict[str, Any] = {"name": self.layer(under, index) if inner else f"input_{index}", "dtype": dtype}
        one["shape"] = shape
        if kind is not None and image and not isinstance(self.get(*place), str):
            self.say((*place, "type"), "mapped", "model: spec.inputs", "an image: batch first, sizes by layout")
        if image:
            one |= {"layout": f"N{layout}", "semantics": self.semantics(under, mode, CHANNELS[mode])}
            if dtype == "uint8":
                one["high"] = 256
        return one

    def layer(self, under: Place, index: int) -> str:
        for key in ("input_layer", "layer_name"):
            value = self.get(*under, key)
            if isinstance(value, str) and INPUT.holds(value):
                self.say((*under, key), "mapped", "model: spec.inputs.name")
                return value
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                note = "an index; the graph's own name is taken when its file is found"
                self.say((*under, key), "kept", "metadata.labels", note)
                return f"input_{value}"
            if value is not None:
                self.say((*under, key), "refused", note=f"wanted the name or index of an input, got {value!r:.60}")
        return f"input_{index}"

    def word(self, place: Place, known: tuple[str, ...], default: str) -> str:
        text = self.text(*place)
        if text is None:
            return default
        if text.upper() not in known:
            near = did_you_mean(text, known)
            self.say(place, "refused", note=f"{text!r:.40} is none of {', '.join(known)}.{near} Taken as {default}")
            return default
        self.say(place, "mapped", "model: spec.inputs")
        return text.upper()

    def dtype(self, place: Place) -> str | None:
        text = self.text(*place)
        if text is None:
            return "float32"
        dtype = DTYPES.get(text.strip().lower())
        if dtype is None:
            note = f"no tensor of Gnomon has the element type {text!r:.40}.{did_you_mean(text, DTYPES)}"
            self.say(place, "unmapped", note=note)
            return None
        self.say(place, "mapped", "model: spec.inputs.dtype", "" if dtype == text else f"as {dtype}")
        return dtype

    def semantics(self, under: Place, mode: str, channels: int) -> str:
        """What the values mean, as far as mean and scale say it."""
        mean = self.numbers((*under, "mean"), channels)
        scale = self.numbers((*under, "scale"), channels, lambda x: x != 0)
        said = [mode]
        if mean is not None or scale is not None:
            said.append(f"(x - {mean or 0}) / {scale or 1}")
        return ", ".join(said)

    def numbers(self, place: Place, channels: int, holds: Callable[[float], bool] = lambda x: True) -> Any:
        value = self.get(*place)
        if value is None:
            return None
        numbers = [_number(one) for one in (value if isinstance(value, list) else [value])]
        if any(one is None or not holds(one) for one in numbers) or len(numbers) not in (1, channels):
            self.say(
                place, "refused", note=f"wanted a number or one for each of {channels} channels, got {value!r:.60}"
            )
            return None
        self.say(place, "mapped", "model: spec.inputs.semantics", "described; what is fed is already normalised")
        return [float(one) for one in numbers if one is not None] if isinstance(value, list) else numbers[0]

    def shape(self, under: Place, stated: Any, image: bool, layout: str, channels: int) -> list[int | str] | None:
        place = (*under, "dimensions")
        if stated is None:
            names: list[int | str] = ["B", channels, "H", "W"] if layout == "CHW" else ["B", "H", "W", channels]
            return names if image else None
        if isinstance(stated, str):
            stated = re.findall(r"-?\w+", stated)
            self.say(place, "mended", note="a list written as text", done=False)
        axes = stated if isinstance(stated, list) else [stated]
        if image and len(axes) == 4 and _size(axes[0], "B") in ("B", 1):
            self.say(place, "mended", note="the batch is no part of the dimensions; left out", done=False)
            axes = axes[1:]
        if image and len(axes) == 1:
            axes = [channels, axes[0], axes[0]]
        if (image and len(axes) != 3) or not axes:
            self.say(place, "refused", note=f"wanted channels, height and width without the batch, got {stated!r:.60}")
            return None
        defaults = "CHW" if image else [f"D{i}" for i in range(1, len(axes) + 1)]
        sizes = [_size(axis, default) for axis, default in zip(axes, defaults, strict=True)]
        if any(size is None for size in sizes):
            self.say(
                place, "refused", note=f"wanted sizes from 1 to {LARGEST_SIZE:,} or -1 for any, got {stated!r:.60}"
            )
            return None
        whole: list[int | str] = [size for size in sizes if size is not None]
        if image and layout == "HWC":
            if whole[2] in (1, 3, 4) and whole[0] not in (1, 3, 4):
                self.say(place, "mended", note="height, width, channels where channels come first", done=False)
            else:
                whole = [whole[1], whole[2], whole[0]]
        self.say(place, "mapped", "model: spec.inputs.shape", f"as {['B', *whole]}")
        return ["B", *whole]

    # -- documents -----------------------------------------------------------------------------------------------

    def documents(self, metadata: dict[str, Any], model: dict[str, Any], dims: dict[str, int]) -> dict[str, Any]:
        who = {"name": metadata["name"], "version": metadata["version"]}
        model_file = {"file": f"./{self.stem}.model.yaml"}
        floating = [i["dtype"] for i in model["inputs"] if i["dtype"] in ("float64", "float16", "bfloat16")]
        about = f"One batch through {metadata['name']}, imported from a manifest of ML ModelScope."
        spec: dict[str, Any] = {"model": model_file, "dims": dims}
        if floating:
            spec["dtype"] = floating[0]
        documents = {
            "model": _document("Model", metadata, model),
            "task": _document("Task", {**who, "description": about}, spec),
        }
        packages = self.software()
        if packages is not None:
            software = {**who, "name": f"{who['name'][:54].rstrip('-._')}-software"}
            documents["software"] = _document("Software", software, {"packages": packages})
        return documents

    def code(self, model: Mapping[str, Any]) -> dict[str, str]:
        """Labels with the digests of inline code, which goes nowhere else."""
        labels = {}
        for key in CODE_KEYS:
            value = self.get(key)
            if not _is_code(key, value):
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            labels[f"{CODE}/{key}"] = f"sha256:{sha256}"
            said = next((one["semantics"] for one in model["inputs"] if "semantics" in one), "")
            declared = f" The parameters declare {said}." if said and "preprocess" in key else ""
            note = (
                f"inline code of {len(text.splitlines())} lines (sha256 {sha256[:12]}), not taken over and never run."
                f"{declared} Write it as a callable of a package and name it in the model's stages"
            )
            self.say((key,), "refused", f"{CODE}/{key}", note)
        return labels

    def check(self, documents: Mapping[str, Any]) -> None:
        """The documents are manifests by our own reader. Raises ManifestError with what it finds."""
        for role, document in documents.items():
            try:
                read_manifest(document)
            except StructureError as error:
                found = [
                    f"{self.loaded.path}: as a {role}: {problem.where}: {problem.message}" for problem in error.problems
                ]
                raise ManifestError(show(found)) from error


def _document(kind: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": dict(metadata), "spec": dict(spec)}


def _dotted(place: Place) -> str:
    return Problem(place, "").where if place else ""


def _what(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else repr(value)[:60]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:64].strip("-._")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def _size(axis: Any, default: str) -> int | str | None:
    """A size, or a name for one that is open (-1, 0, nothing, a word); None for what is neither."""
    number = _number(axis)
    if number is not None and number.is_integer() and 1 <= number <= LARGEST_SIZE:
        return int(number)
    if axis is None or number in (-1, 0):
        return default
    if isinstance(axis, str) and re.fullmatch(r"[A-Za-z]\w{0,15}", axis, re.ASCII):
        return "B" if axis.lower() in ("n", "batch", "batch_size") else axis[0].upper() + axis[1:]
    return None


def _differ(shape: list[int | str], stated: list[int | str]) -> bool:
    return len(shape) != len(stated) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(shape, stated, strict=True)
    )
