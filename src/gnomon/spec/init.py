"""The questions that make a manifest, and the manifest that the answers make. What can be told by looking is offered.

Looking means reading: a configuration, an ONNX file, the source text of a function. No code is run.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gnomon.core.digest import file_digest
from gnomon.core.errors import GnomonError, ManifestError, did_you_mean
from gnomon.core.records import StructureError
from gnomon.spec import adopt
from gnomon.spec.code import locate, source_of, top_level_names
from gnomon.spec.find import inside
from gnomon.spec.grammar import ARGUMENT, DIM, INPUT, LARGEST_SIZE, NAME, TARGET, VERSION
from gnomon.spec.load import load
from gnomon.spec.manifest import API_VERSION
from gnomon.spec.manifest import read as read_manifest
from gnomon.spec.onnx_graph import read_graph
from gnomon.spec.require import malformed
from gnomon.spec.task import Dtype, FloatDtype, Mode
from gnomon.spec.write import yaml_text

KINDS = ("task", "model", "dataset", "software", "hardware")
SOURCES = ("python", "huggingface", "onnx")
_INPUT = re.compile(r"(?P<name>[^=\s]+)=(?P<dtype>\w+)\[(?P<shape>[^\]]*)\](?:<(?P<high>\w+))?")
_VENDORS = ("NVIDIA", "AMD", "Intel")


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask. key: of the answer. option: of the command line. read: the answer's text to its value.

    read raises ValueError that says what was wanted. default: the text that is meant by an empty answer; None when an
    answer must be given.
    """

    key: str
    option: str
    text: str
    read: Callable[[str], Any]
    default: str | None = None


def next_question(answers: Mapping[str, Any], folder: Path) -> Question | None:
    """What to ask after these answers (values by key); None when they make a manifest.

    folder: where the manifest will stand; files that it pins lie there or below.
    """
    for question in _questions(answers, folder):
        if question.key not in answers:
            return question
    return None


def _questions(answers: Mapping[str, Any], folder: Path) -> list[Question]:
    """The questions that these answers lead to, in order; after one without an answer no more than can be told."""
    asked = [Question("kind", "--kind", f"Kind of manifest ({', '.join(KINDS)})", _one_of(KINDS), "task")]
    kind = answers.get("kind")
    if kind in ("task", "model"):
        asked += _of_model(answers, folder)
    elif kind == "dataset":
        text = "Callable examples(dims, seed) -> {input: tensor}, as package.module:callable"
        asked.append(Question("examples", "--examples", text, lambda text: _code(text, folder)))
    elif kind == "software":
        asked += [
            Question("packages", "--package", "Packages, such as torch>=2.9 (spaces between them)", _packages, ""),
            Question("python", "--python", "Range of Python versions", _python, ">=3.11"),
        ]
    elif kind == "hardware":
        asked += [
            Question("min_cores", "--min-cores", "Least cores of the processor", _whole, "1"),
            Question("memory_gib", "--memory-gib", "Least memory in GiB", _positive, "1"),
            Question(
                "accelerators", "--accelerators", "Least number of accelerators", lambda t: _whole(t, least=0), "0"
            ),
        ]
        if answers.get("accelerators"):
            asked += [
                Question("vendor", "--vendor", f"Their vendor ({', '.join(_VENDORS)})", _one_of(_VENDORS), "NVIDIA"),
                Question("accelerator_gib", "--accelerator-gib", "Least memory of each in GiB", _positive, "8"),
            ]
    if kind == "task":
        asked += [
            Question("mode", "--mode", f"Mode ({', '.join(get_args(Mode))})", _one_of(get_args(Mode)), "inference"),
            Question("dtype", "--dtype", "Dtype of the weights", _one_of(get_args(FloatDtype)), "float32"),
            Question(
                "least_cosine",
                "--least-cosine",
                "Quality: least mean cosine to the original's outputs",
                _cosine,
                "0.99",
            ),
        ]
        if answers.get("source") == "onnx":
            asked = [question for question in asked if question.key != "mode"]
    if kind is not None:
        asked += [
            Question("name", "--name", "Name", _grammar(NAME), _suggested_name(answers)),
            Question("version", "--version", "Version", _grammar(VERSION), "1.0.0"),
            Question("description", "--description", "One line about it", str.strip, ""),
        ]
    return asked


def _of_model(answers: Mapping[str, Any], folder: Path) -> list[Question]:
    asked = [
        Question("source", "--source", f"Where the model comes from ({', '.join(SOURCES)})", _one_of(SOURCES), "python")
    ]
    source = answers.get("source")
    if source == "python":
        text = "Callable that returns the model, as package.module:callable"
        asked.append(Question("target", "--target", text, lambda text: _code(text, folder)))
        if "target" in answers:
            needed = required_arguments(answers["target"], folder)
            example = f"; it needs {', '.join(needed)}" if needed else ""
            default = None if needed else ""
            text = f"Its arguments, NAME=VALUE (spaces between them; $B is the size of B{example})"
            asked.append(Question("arguments", "--argument", text, lambda text: _arguments(text, needed), default))
            if answers.get("kind") == "task":
                text = "Callable examples(dims, seed) that gives real inputs (empty: drawn at random)"
                beside = _examples_beside(answers["target"], folder)
                asked.append(
                    Question("examples", "--examples", text, lambda t: _code(t, folder) if t.strip() else "", beside)
                )
    elif source == "huggingface":
        text = "The configuration: config.json, or the folder it is in"
        asked.append(Question("config", "--config", text, lambda text: _config(text, folder)))
    elif source == "onnx":
        asked.append(
            Question(
                "weights", "--weights", "The .onnx file, beside the manifest or below", lambda text: _onnx(text, folder)
            )
        )
    model = _model_so_far(answers)
    if source in ("python", "onnx") and any(key in answers for key in ("arguments", "weights")):
        default = " ".join(map(input_text, model["inputs"])) or ("" if answers.get("examples") else None)
        text = "Its inputs, NAME=DTYPE[AXES], such as ids=int64[B,L]<30522 (spaces between them)"
        asked.append(
            Question("inputs", "--input", text, lambda text: read_inputs(text, source, default == ""), default)
        )
    sizes = {"B": "1", **{name: str(size) for name, size in model["dims"].items()}}
    for name in sorted(
        _named(answers.get("inputs", model["inputs"]), answers.get("arguments", {})), key=lambda n: (n != "B", n)
    ):
        if source != "python" or "inputs" in answers:
            asked.append(
                Question(f"dim.{name}", f"--dim {name}=", f"Size of the dimension {name}", _whole, sizes.get(name))
            )
    return asked


def document(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that complete answers make, as plain data. Raises ManifestError when our reader refuses it."""
    kind = answers["kind"]
    metadata = {"name": answers["name"], "version": answers["version"]}
    if answers["description"]:
        metadata["description"] = answers["description"]
    spec: dict[str, Any]
    if kind in ("task", "model"):
        model, dims = _model(answers)
        spec = {"model": model, "dims": dims} if kind == "task" else {**model, **({"dims": dims} if dims else {})}
        if kind == "task":
            spec |= {"mode": answers.get("mode", "inference"), "dtype": answers["dtype"]}
            if answers.get("examples"):
                spec["dataset"] = {"examples": answers["examples"]}
            spec["quality"] = {"least_cosine": answers["least_cosine"]}
    elif kind == "dataset":
        spec = {"examples": answers["examples"]}
    elif kind == "software":
        spec = {"python": answers["python"], "packages": answers["packages"]}
    else:
        spec = {"cpu": {"min_cores": answers["min_cores"]}, "memory_gib": answers["memory_gib"]}
        if answers["accelerators"]:
            given = {
                "vendor": answers["vendor"],
                "count": answers["accelerators"],
                "memory_gib": answers["accelerator_gib"],
            }
            spec["accelerators"] = [given]
    whole = {"apiVersion": API_VERSION, "kind": kind.capitalize(), "metadata": metadata, "spec": spec}
    try:
        read_manifest(whole)
    except StructureError as error:
        raise ManifestError("\n".join(f"{p.where}: {p.message}" for p in error.problems)) from error
    return whole


def text(answers: Mapping[str, Any]) -> str:
    """The same as a file: YAML with a comment above each key that is worth one."""
    whole = document(answers)
    model = ("spec", "model") if answers["kind"] == "task" else ("spec",)
    comments: dict[tuple[str | int, ...], str] = {
        ("apiVersion",): f"A {answers['kind']} of Gnomon: data, no code. Every key is explained in docs/manifest.md.",
        ("metadata", "version"): "raise it when the meaning changes; in quotes, because 1.10 is the number 1.1",
        ("spec", "dims"): "sizes of the named dimensions; B is the batch. --dim NAME=SIZE changes one for a run",
        ("spec", "mode"): "inference, or training: forward, loss, backward, optimizer step",
        (
            "spec",
            "quality",
        ): "a change that makes it faster must stay within this bound; 'evaluate' and 'metric' name a score",
        ("spec", "dataset"): "real inputs: examples(dims, seed) returns a tensor for each input",
        ("spec", "packages"): "compared with what is installed, never installed",
        ("spec", "cpu"): "what a machine must have at least, not what one has",
    }
    if answers["kind"] in ("task", "model"):
        comments |= {
            (*model, "inputs"): "shape: sizes, or names that get a size in dims",
            (*model, "weights"): "pinned: one changed byte is refused",
            (*model, "arguments"): "of the callable, or the configuration's values; $B is the size of B",
        }
    return yaml_text(whole, comments)


def _model(answers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The model's spec, and the sizes of its dimensions."""
    model = _model_so_far(answers)
    inputs = answers.get("inputs", model["inputs"])
    dims = {key.removeprefix("dim."): size for key, size in answers.items() if key.startswith("dim.")}
    source = answers["source"]
    spec: dict[str, Any] = {"source": source}
    if source == "python":
        spec["target"] = answers["target"]
        if answers["arguments"]:
            spec["arguments"] = answers["arguments"]
    elif source == "huggingface":
        spec |= {"target": model["target"], "arguments": model["arguments"]}
        if model["max_dims"]:
            spec["max_dims"] = model["max_dims"]
    else:
        spec["weights"] = {key: answers["weights"][key] for key in ("file", "sha256")}
    return {**spec, "inputs": inputs}, dims


def _model_so_far(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs and sizes that the configuration or the ONNX file tells."""
    if "config" in answers:
        spec = answers["config"]
        return {**spec["model"], "dims": spec["dims"]}
    return {"inputs": answers["weights"]["inputs"] if "weights" in answers else [], "dims": {}}


def _named(inputs: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> set[str]:
    """The dimensions that inputs and arguments name."""
    names = {axis for one in inputs for axis in one["shape"] if isinstance(axis, str)}
    names |= {one["high"] for one in inputs if isinstance(one.get("high"), str)}
    return names | {v[1:] for v in arguments.values() if isinstance(v, str) and v.startswith("$") and DIM.holds(v[1:])}


def _suggested_name(answers: Mapping[str, Any]) -> str | None:
    target = answers.get("target") or answers.get("examples")
    if "weights" in answers:
        hint = Path(answers["weights"]["file"]).stem
    elif "config" in answers:
        hint = answers["config"]["model"]["target"]
    elif target:
        hint = str(target).partition(":")[0].rpartition(".")[2]
    else:
        return "my-" + answers["kind"]
    return re.sub(r"[^a-z0-9._-]+", "-", hint.lower())[:64].strip("-._") or None


# -- looking, without running --------------------------------------------------------------------------------------


def required_arguments(target: str, folder: Path) -> list[str]:
    """The parameters of a function or of a class's __init__ that have no default, read from the source text."""
    module, _, name = target.partition(":")
    source = source_of(module, folder)
    if source is None or source.suffix != ".py":
        return []
    try:
        body = ast.parse(source.read_bytes()).body
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            return _without_default(inits[-1])[1:] if inits else []
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _without_default(node)
    return []


def _without_default(function: ast.FunctionDef) -> list[str]:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    needed = positional[: len(positional) - len(given.defaults)]
    needed += [one for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return [one.arg for one in needed]


def _examples_beside(target: str, folder: Path) -> str:
    module = target.partition(":")[0]
    source = source_of(module, folder)
    names = top_level_names(source) if source is not None else None
    return f"{module}:examples" if names and "examples" in names else ""


def input_text(given: Mapping[str, Any]) -> str:
    """An input as it is asked for: 'ids=int64[B,L]<30522'."""
    high = f"<{given['high']}" if "high" in given else ""
    return f"{given['name']}={given['dtype']}[{','.join(map(str, given['shape']))}]{high}"


# -- answers: text to values, ValueError says what was wanted ------------------------------------------------------


def read_inputs(text: str, source: str, may_be_empty: bool = False) -> list[dict[str, Any]]:
    """'x=float32[B,3,224,224] ids=int64[B,L]<30522' as a manifest's inputs."""
    joined = re.sub(r"\s*,\s*", ",", re.sub(r"\[\s*([^\]]*?)\s*\]", r"[\1]", text))
    found = [_one_input(part, source) for part in joined.split()]
    if not found and not may_be_empty:
        raise ValueError("wanted at least one input, such as x=float32[B,3,224,224]")
    names = [one["name"] for one in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two inputs have the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
        )
    return found


def _one_input(text: str, source: str) -> dict[str, Any]:
    match = _INPUT.fullmatch(text)
    if match is None:
        raise ValueError(f"wanted NAME=DTYPE[AXES] such as x=float32[B,3,224,224], got {text[:60]!r}")
    grammar = ARGUMENT if source == "python" else INPUT
    if not grammar.holds(match["name"]):
        raise ValueError(f"wanted {grammar.wanted}, got {match['name'][:60]!r}")
    dtypes = get_args(Dtype)
    if match["dtype"] not in dtypes:
        near = did_you_mean(match["dtype"], dtypes)
        raise ValueError(f"no dtype is called {match['dtype'][:40]!r}.{near} Known: {', '.join(dtypes)}")
    shape = [_axis(axis) for axis in match["shape"].split(",")] if match["shape"] else []
    one: dict[str, Any] = {"name": match["name"], "dtype": match["dtype"], "shape": shape}
    if match["high"] is not None:
        one["high"] = _axis(match["high"])
    return one


def _axis(text: str) -> int | str:
    if text.isdecimal() and text.isascii():
        return _whole(text)
    if not DIM.holds(text):
        raise ValueError(f"wanted a size or {DIM.wanted}, got {text[:40]!r}")
    return text


def _whole(text: str, least: int = 1) -> int:
    text = text.strip()
    if not (text.isdecimal() and text.isascii() and len(text) <= 10 and least <= int(text) <= LARGEST_SIZE):
        raise ValueError(f"wanted a whole number from {least} to {LARGEST_SIZE:,}, got {text[:40]!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"wanted a number, got {text[:40]!r}") from None
    if not math.isfinite(number) or abs(number) > 1e300:
        raise ValueError(f"wanted a finite number, got {text[:40]!r}")
    return number


def _positive(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise ValueError(f"wanted a positive number, got {text[:40]!r}")
    return number


def _cosine(text: str) -> float:
    number = _number(text)
    if not -1 <= number <= 1:
        raise ValueError(f"wanted a cosine from -1 to 1, got {text[:40]!r}")
    return number


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        folded = {one.lower(): one for one in known}
        if text.strip().lower() not in folded:
            raise ValueError(f"wanted one of {', '.join(known)}, got {text[:40]!r}.{did_you_mean(text, known)}")
        return folded[text.strip().lower()]

    return read


def _grammar(constraint: Any) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not constraint.holds(text.strip()):
            raise ValueError(f"wanted {constraint.wanted}, got {text[:70]!r}")
        return text.strip()

    return read


def _code(text: str, folder: Path) -> str:
    """A callable that is there; one that lies beside the manifest is taken, too: it runs with --trust."""
    target = text.strip()
    if not TARGET.holds(target):
        raise ValueError(f"wanted {TARGET.wanted}, got {text[:70]!r}")
    try:
        locate(target, folder, trust=True)
    except ManifestError as error:
        raise ValueError(str(error)) from error
    return target


def _arguments(text: str, needed: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals or not ARGUMENT.holds(name):
            raise ValueError(f"wanted NAME=VALUE such as layers=2, got {part[:60]!r}")
        if value.startswith("$") and not value.startswith("$$") and not DIM.holds(value[1:]):
            raise ValueError(f"wanted '$' and {DIM.wanted} ('$$' for a dollar sign), got {value[:40]!r}")
        arguments[name] = _value(value)
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ValueError(f"these have no default: {', '.join(missing)}")
    return arguments


def _value(text: str) -> Any:
    """A whole number, a number, true, false or null; all else is text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    fits = value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) < 2**63)
    return value if fits else text


def _packages(text: str) -> list[str]:
    found = text.split()
    _software({"packages": found})
    return found


def _python(text: str) -> str:
    _software({"python": text.strip()})
    return text.strip()


def _software(spec: Mapping[str, Any]) -> None:
    from gnomon.core.records import structure
    from gnomon.spec.manifest import SoftwareSpec

    try:
        wrong = malformed(structure(SoftwareSpec, spec), False)
    except StructureError as error:
        raise ValueError(str(error)) from error
    if wrong:
        raise ValueError(wrong[0][1])


def _config(text: str, folder: Path) -> dict[str, Any]:
    path = Path(text.strip())
    path = path / "config.json" if path.is_dir() else path
    path = path if path.exists() or path.is_absolute() else folder / path
    try:
        config = load(path).document
        if not isinstance(config, Mapping):
            raise ManifestError(f"{path}: wanted a table, the configuration of a model")
        spec: dict[str, Any] = adopt.from_huggingface(config, path)["spec"]
    except GnomonError as error:
        raise ValueError(str(error)) from error
    return spec


def _onnx(text: str, folder: Path) -> dict[str, Any]:
    given = Path(text.strip())
    full = (given if given.exists() and not (folder / given).exists() else folder / given).resolve()
    if not full.is_relative_to(folder.resolve()):
        raise ValueError(f"{given} does not lie in {folder.resolve()}; copy it there, or write the manifest beside it")
    relative = full.relative_to(folder.resolve()).as_posix()
    try:
        graph = read_graph(inside(folder, relative))
    except ManifestError as error:
        raise ValueError(str(error)) from error
    odd = next((put for put in graph.inputs if put.dtype is None or not INPUT.holds(put.name)), None)
    if odd is not None:
        raise ValueError(f"its input {odd.name!r} has a type or a name that Gnomon does not know")
    inputs = [{"name": put.name, "dtype": put.dtype, "shape": put.symbolic()} for put in graph.inputs]
    return {"file": f"./{relative}", "sha256": file_digest(full).removeprefix("sha256:"), "inputs": inputs}
