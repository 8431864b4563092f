"""Model manifests of ML ModelScope's Go agents as documents of Gnomon: read as data, nothing run, nothing fetched.

The format: Dakkak et al., arXiv:1811.09737, and the manifests that its agents ship. What it leaves out has the meaning
that the agents gave it: float32, layout HWC, mode RGB, mean 0, scale 1; `dimensions` are channels, height, width
whatever the layout, without the batch; a framework's version is a constraint; checksums are MD5.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from gnomon.core.errors import ManifestError, did_you_mean
from gnomon.core.records import StructureError
from gnomon.spec.grammar import INPUT, VERSION
from gnomon.spec.imports.assets import Assets, Found
from gnomon.spec.imports.back import CODE, remaining
from gnomon.spec.imports.constraint import specifier
from gnomon.spec.imports.inputs import read_inputs
from gnomon.spec.imports.reading import Reading, dotted, what, written
from gnomon.spec.imports.report import Imported, Remark
from gnomon.spec.imports.templates import fill, has_template
from gnomon.spec.imports.text import Messy, leaves, read
from gnomon.spec.load import Place, show
from gnomon.spec.manifest import API_VERSION
from gnomon.spec.manifest import read as read_manifest

KEYS = (
    "name", "version", "framework", "container", "description", "references", "license", "inputs", "output", "outputs",
    "model", "attributes", "hidden",
)  # fmt: skip
CODE_KEYS = (
    "before_preprocess", "preprocess", "after_preprocess", "before_postprocess", "postprocess", "after_postprocess",
)  # fmt: skip
PACKAGES = {"onnxruntime": "onnxruntime", "pytorch": "torch", "tensorflow": "tensorflow", "mxnet": "mxnet"}
FORMATS = {
    ".onnx": "ONNX graph", ".pt": "TorchScript program", ".pth": "PyTorch pickle", ".pb": "TensorFlow graph",
    ".tflite": "TensorFlow Lite model", ".json": "MXNet symbol", ".prototxt": "Caffe network",
    ".uff": "TensorRT network",
}  # fmt: skip


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
    return _Importer(
        loaded=messy.loaded, document=document, messy=messy, stem=path.stem if stem is None else stem, assets=assets
    ).run()


def meaning(path: Path, data: bytes) -> dict[str, Any]:
    """What a manifest says, as `to_mlmodelscope` gives it back: plain data, versions as text, without inline code."""
    return _meaning(read(path, data).loaded.document)


def _meaning(document: Mapping[str, Any]) -> dict[str, Any]:
    said = {str(key): value for key, value in document.items() if not _is_code(key, value)}
    if "version" in said:
        said["version"] = written(said["version"])
    if isinstance(said.get("framework"), Mapping) and "version" in said["framework"]:
        said["framework"] = {**said["framework"], "version": written(said["framework"]["version"])}
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def _is_code(key: Any, value: Any) -> bool:
    return key in CODE_KEYS and value not in (None, "")


@dataclass(kw_only=True)
class _Importer(Reading):
    """One manifest on its way. document: as it was read, then with its templates filled in. files: assets to copy."""

    messy: Messy
    stem: str
    assets: Assets | None
    files: dict[str, Path] = field(default_factory=dict)

    def run(self) -> Imported:
        for mended in self.messy.mended:
            self.remarks.append(Remark(dotted(mended.place), mended.line, "mended", note=mended.note))
        original = self.document
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
            self.say(("references",), "refused", note=f"wanted a list of texts, got {what(references)}")
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
        inputs = read_inputs(self)
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


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:64].strip("-._")


def _differ(shape: list[int | str], stated: list[int | str]) -> bool:
    return len(shape) != len(stated) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(shape, stated, strict=True)
    )
