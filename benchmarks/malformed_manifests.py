"""Malformed manifests through the real command line: each must give exit code 2, one screen, no traceback, run nothing.

    python benchmarks/malformed_manifests.py [--count 200] [--subprocesses 8]

With --imported the cases are malformed manifests of ML ModelScope, which go to `gnomon import`: each must become valid
manifests (exit code 0) or end as above.

A case is one file. Those whose name begins with `refer-` are well formed by themselves and fail when their references
are followed, so they go to `gnomon resolve`; all others go to `gnomon validate` and to `gnomon resolve`.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCREEN = 25  # lines
CANARY = "canary"  # exists if code of a manifest has run
ZEROS = "0" * 64

MODULE = f"open({CANARY!r}, 'w').close()\n\n\ndef build(**arguments):\n    return None\n\n\nexamples = build\n"


def task(**spec: Any) -> dict[str, Any]:
    """A well-formed task; keys of `spec` replace its own."""
    model = {
        "source": "python",
        "target": "gnomon.zoo.graph.gcn:build",
        "arguments": {"in_features": "$F", "hidden": 8, "classes": 3, "layers": 2},
        "inputs": [
            {"name": "features", "dtype": "float32", "shape": ["V", "F"]},
            {"name": "edge_index", "dtype": "int64", "shape": [2, "E"], "high": "V"},
        ],
    }
    whole = {
        "dims": {"V": 16, "E": 32, "F": 4},
        "dtype": "float32",
        "mode": "inference",
        "threads": 1,
        "seed": 0,
        "model": model,
        "software": {"python": ">=3.11", "packages": ["torch>=2.9"], "env": {"OMP_NUM_THREADS": "1"}},
        "hardware": {"cpu": {"min_cores": 1}, "memory_gib": 0.1},
        "training": {"optimizer": "sgd", "learning_rate": 0.1, "loss": "mean"},
        "quality": {"least_cosine": 0.99},
        "protocol": {"sessions": 2, "calls": 5, "warmup_s": 1, "timeout_s": 60},
    }
    return {
        "apiVersion": "gnomon/v1",
        "kind": "Task",
        "metadata": {"name": "small", "version": "1.0.0", "references": ["a paper"], "labels": {"family": "graph"}},
        "spec": {**whole, **spec},
    }


def part(kind: str, name: str, version: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "gnomon/v1", "kind": kind, "metadata": {"name": name, "version": version}, "spec": spec}


def model_with(**changes: Any) -> dict[str, Any]:
    return {**task()["spec"]["model"], **changes}


def cases(count: int = 200) -> list[tuple[str, bytes]]:
    """`count` different malformed manifests, the same each time. Raises ValueError when there are not so many."""
    found: dict[str, bytes] = {}
    wrong = list(_wrong_types())
    for name, content in [*_references(), *_texts(), *wrong[::10], *_missing(), *_values(), *_unknown(), *wrong]:
        data = content if isinstance(content, bytes) else _text(content).encode()
        if data not in found.values():
            found[name] = data
    if len(found) < count:
        raise ValueError(f"there are {len(found)} cases, not {count}")
    return list(found.items())[:count]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=1)  # JSON is YAML 1.2


def _references() -> Iterator[tuple[str, Any]]:
    """Faults that show when references are followed."""
    yield "refer-cycle-self", task(extends={"file": "./refer-cycle-self.yaml"})
    yield "refer-cycle-a", task(extends={"file": "./refer-cycle-b.yaml"})
    yield "refer-cycle-b", task(extends={"file": "./refer-cycle-c.yaml"}, seed=1)
    yield "refer-cycle-c", task(extends={"file": "./refer-cycle-a.yaml"}, seed=2)
    yield "refer-unknown-model", task(model={"ref": "no-such-model@^1"})
    yield "refer-unknown-dataset", task(dataset={"ref": "lee-2006"})
    yield "refer-unknown-version", task(dataset={"ref": "lee-2005@^99"})
    yield "refer-exact-version", task(dataset={"ref": "lee-2005@0.0.1"})
    yield "refer-empty-range", task(dataset={"ref": "lee-2005@>=2,<1"})
    yield "refer-wrong-digest", task(dataset={"ref": f"lee-2005@sha256:{ZEROS}"})
    yield "refer-wrong-kind", task(model={"ref": "lee-2005"})
    yield "refer-task-as-model", task(model={"ref": "sentence-embedding"})
    yield "refer-parent-folder", task(model={"file": "../model.yaml"})
    yield "refer-deep-parent-folder", task(model={"file": "a/../../../../../../etc/passwd"})
    yield "refer-absolute-path", task(model={"file": "/etc/passwd"})
    yield "refer-windows-path", task(model={"file": "C:\\model.yaml"})
    yield "refer-backslashes", task(model={"file": "..\\model.yaml"})
    yield "refer-symbolic-link", task(model={"file": "./link.yaml"})
    yield "refer-missing-file", task(model={"file": "./absent.yaml"})
    yield "refer-folder", task(model={"file": "./folder"})
    yield "refer-device-file", task(model={"file": "/dev/zero"})
    yield "refer-nul", task(model={"file": "model\0.yaml"})
    yield "refer-weights-outside", task(model=model_with(weights={"file": "../weights.bin", "sha256": ZEROS}))
    yield "refer-weights-missing", task(model=model_with(weights={"file": "weights.bin", "sha256": ZEROS}))
    yield "refer-package-escape", task(model=model_with(weights={"package": "numpy/../secret", "sha256": ZEROS}))
    yield "refer-package-file", task(model=model_with(weights={"package": "numpy/numpy/absent", "sha256": ZEROS}))
    yield "refer-code-beside", task(model=model_with(target="canary_module:build", arguments={}))
    yield "refer-code-in-package", task(model=model_with(target="canary_package.inner:build", arguments={}))
    yield "refer-code-of-python", task(model=model_with(target="os:system", arguments={"command": f"touch {CANARY}"}))
    yield (
        "refer-code-subprocess",
        task(model=model_with(target="subprocess:run", arguments={"args": ["touch", CANARY]})),
    )
    yield "refer-code-absent", task(model=model_with(target="no_such_module:build"))
    yield "refer-code-no-callable", task(model=model_with(target="gnomon.zoo.graph.gcn:biuld"))
    yield "refer-code-examples", task(dataset={"examples": "canary_module:examples"})
    yield "refer-code-evaluate", task(quality={"evaluate": "canary_module:build", "metric": "accuracy"})
    yield "refer-code-loss", task(training={"loss": "canary_module:build"})
    yield "refer-env-preload", task(software={"env": {"LD_PRELOAD": "./evil.so"}})
    yield "refer-env-pythonpath", task(software={"env": {"PYTHONPATH": "."}})
    yield "refer-python-range", task(software={"python": "three"})
    yield "refer-requirement", task(software={"packages": ["torch >="]})
    yield "refer-requirement-url", task(software={"packages": ["torch @ https://example.org/torch.whl"]})
    yield "refer-dim-without-size", task(dims={"V": 16, "F": 4})
    yield "refer-argument-without-dim", task(model=model_with(arguments={"in_features": "$G"}))
    yield "refer-over-the-limit", task(model=model_with(max_dims={"V": 8}))
    provides = {
        "features": {"dtype": "float32", "shape": ["V", "F"]},
        "edge_index": {"dtype": "int64", "shape": [2, "E"]},
    }
    five = {**provides, "features": {"dtype": "float32", "shape": ["V", 5]}}
    data = {"examples": "gnomon.zoo.graph.gcn:examples"}
    yield "refer-shapes-differ", task(dataset={**data, "provides": five})
    yield "refer-input-not-provided", task(dataset={**data, "provides": {"features": provides["features"]}})
    yield "refer-input-unknown", task(dataset={**data, "provides": {"feature": provides["features"]}})
    yield "refer-ambiguous", task(dataset={"ref": "twice@^1"})
    yield "refer-extends-model", task(extends={"ref": "all-minilm-l6-v2"})
    yield "refer-extends-unknown", task(extends={"ref": "no-such-task@^1"})
    yield "refer-not-a-task", part("Software", "stack", "1.0", python=">=3.11")
    yield "refer-broken-part", task(model={"file": "./missing-kind.yaml"})


def _texts() -> Iterator[tuple[str, str | bytes]]:
    """Faults of the text: what is no YAML, or more than a manifest may hold."""
    good = _text(task())
    head = "apiVersion: gnomon/v1\nkind: Task\nmetadata: {name: a, version: '1'}\n"
    yield "missing-kind", "apiVersion: gnomon/v1\nmetadata: {name: a, version: '1'}\nspec: {}\n"
    yield "empty", b""
    yield "only-comments", "# nothing\n\n# here\n"
    yield "only-null", "~\n"
    yield "a-list", "- 1\n- 2\n"
    yield "a-number", "42\n"
    yield "a-text", "just words\n"
    yield "binary", bytes(range(256)) * 20
    yield "utf-16", good.encode("utf-16")
    yield "latin-1", good.replace("a paper", "Schrödinger").encode("latin-1")
    yield "nul-character", good.replace("a paper", "a\0paper").encode()
    yield "escape-character", (head + "spec: {dims: {B: \x1b[31m}}\n").encode()
    yield "tabs", "apiVersion: gnomon/v1\nkind: Task\nmetadata:\n\tname: a\n"
    yield "two-documents", good + "\n---\n" + good
    yield "a-thousand-documents", "---\na: 1\n" * 1000
    yield "unclosed-bracket", head + "spec: {dims: {B: 1\n"
    yield "unclosed-quote", head + "spec: {dtype: 'float32\n"
    yield "wrong-indent", "apiVersion: gnomon/v1\n kind: Task\n"
    yield "yaml-9", "%YAML 9.9\n---\n" + head
    yield "bad-directive", "%YAML one\n---\n" + head
    yield "bad-escape", head + 'spec: {dtype: "\\q"}\n'
    yield "unknown-alias", head + "spec: *nothing\n"
    yield "self-alias", head + "spec: &self {model: *self}\n"
    yield "duplicate-top-key", head + "kind: Task\nspec: {}\n"
    yield "duplicate-key", head + "spec: {dims: {B: 1, B: 2}, model: {ref: a}}\n"
    yield "duplicate-key-by-notation", head + 'spec: {dims: {B: 1, "B": 2}, model: {ref: a}}\n'
    yield "duplicate-key-by-unicode", head + 'spec: {model: {ref: a}, software: {env: {"\u00e9": x, "e\u0301": y}}}\n'
    yield "merge-key", "base: &base {a: 1}\n" + head + "spec: {<<: *base, model: {ref: a}}\n"
    yield "a-table-as-key", head + "spec: {? {a: 1} : b}\n"
    yield "a-list-as-key", head + "spec: {? [a] : b}\n"
    yield "a-number-as-key", head + "spec: {dims: {1: 2}, model: {ref: a}}\n"
    yield "null-as-key", head + "spec: {~: 2, model: {ref: a}}\n"
    for name, tag in {
        "apply": f"!!python/object/apply:os.system ['touch {CANARY}']",
        "new": f"!!python/object/new:os.system ['touch {CANARY}']",
        "module": "!!python/module:canary_module ''",
        "name": "!!python/name:canary_module.build ''",
        "tuple": "!!python/tuple [1, 2]",
        "binary": "!!binary aGVsbG8=",
        "set": "!!set {a, b}",
        "omap": "!!omap [a: 1]",
        "timestamp": "!!timestamp 2020-01-01",
        "local": "!include other.yaml",
        "env": "!ENV ${HOME}",
        "verbatim": "!<tag:example.org,2020:x> y",
    }.items():
        yield f"tag-{name}", head + f"spec: {{model: {{ref: a}}, seed: {tag}}}\n"
    for value in (
        ".nan",
        ".NaN",
        ".inf",
        "-.inf",
        "1e999",
        "-1e999",
        "1" + "0" * 40,
        "9" * 5000,
        "0x" + "f" * 3000,
        "1e301",
    ):
        yield (
            f"number-{value[:6]}-{len(value)}",
            head + f"spec: {{model: {{ref: a}}, training: {{learning_rate: {value}}}}}\n",
        )
    yield "deep-flow", head + "spec: " + "[" * 5000 + "]" * 5000 + "\n"
    yield "deep-tables", head + "spec: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n"
    yield "deep-block", "\n".join(" " * i + "a:" for i in range(400)) + " 1\n"
    yield "deep-unclosed", "[" * 100_000
    yield "deep-by-aliases", "\n".join([f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]" for i in range(200)]) + "\n"
    laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 25)]
    yield "billion-laughs", "\n".join(laughs) + "\n"
    yield "quadratic-blow-up", "a: &a [" + "x, " * 1000 + "]\nb: [" + "*a, " * 1000 + "]\n"
    yield "alias-keys", "a: &a [" + "1, " * 300 + "]\n" + "".join(f"k{i}: [*a, *a]\n" for i in range(500))
    yield "too-large", good + "#" * 400_000
    yield "a-long-key", head + f"spec: {{model: {{ref: a}}, {'k' * 1000}: 1}}\n"
    yield "a-long-value", head + f"spec: {{model: {{ref: a}}, dtype: {'v' * 100_000}}}\n"
    yield "many-unknown-keys", head + "spec: {model: {ref: a}, " + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\n"
    yield "line-breaks-in-key", head + 'spec: {model: {ref: a}, "a\\nb\\nc": 1}\n'
    yield (
        "inline-code",
        head + "spec:\n  model: {ref: a}\n  preprocess: |\n    import os\n    os.system('touch canary')\n",
    )
    yield "template", head + "spec: {model: {ref: {{ model }}}}\n"


def _values() -> Iterator[tuple[str, Any]]:
    """Values of the right type that mean nothing."""
    for name, key, value in (
        ("empty-version", "version", ""), ("float-version", "version", 1.12), ("word-version", "version", "latest"),
        ("long-version", "version", "1.2.3.4.5"), ("v-version", "version", "v1.0"),
        ("newline-version", "version", "1.0\n"),
        ("empty-name", "name", ""), ("capital-name", "name", "Small"), ("path-name", "name", "../small"),
        ("long-name", "name", "a" * 65), ("newline-name", "name", "small\n"),
    ):  # fmt: skip
        changed = task()
        changed["metadata"][key] = value
        yield name, changed
    for name, value in {"kind-word": "Tsk", "kind-case": "task", "kind-number": 3, "kind-list": ["Task"]}.items():
        yield name, {**task(), "kind": value}
    for name, value in {"api-2": "gnomon/v2", "api-other": "apps/v1", "api-number": 1}.items():
        yield name, {**task(), "apiVersion": value}
    for name, spec in {
        "negative-batch": {"dims": {"V": -1, "E": 2, "F": 4}},
        "zero-batch": {"dims": {"V": 0, "E": 2, "F": 4}},
        "huge-batch": {"dims": {"V": 10**12, "E": 2, "F": 4}},
        "fractional-batch": {"dims": {"V": 1.5, "E": 2, "F": 4}},
        "small-letter-dim": {"dims": {"v": 1}},
        "unknown-dtype": {"dtype": "flaot32"},
        "integer-dtype": {"dtype": "int64"},
        "unknown-mode": {"mode": "infer"},
        "no-threads": {"threads": 0},
        "negative-learning-rate": {"training": {"learning_rate": -0.1}},
        "unknown-optimizer": {"training": {"optimizer": "adma"}},
        "loss-with-code": {"training": {"loss": "lambda o, i: 0"}},
        "cosine-over-1": {"quality": {"least_cosine": 1.5}},
        "metric-alone": {"quality": {"metric": "accuracy"}},
        "no-sessions": {"protocol": {"sessions": 0}},
        "negative-timeout": {"protocol": {"timeout_s": -1}},
        "bad-reference": {"model": {"ref": "a@@1"}},
        "bad-range": {"model": {"ref": "a@^one"}},
        "reference-with-path": {"model": {"ref": "../a"}},
        "reference-and-file": {"model": {"ref": "a", "file": "b.yaml"}},
        "unknown-source": {"model": model_with(source="pickle")},
        "target-without-callable": {"model": model_with(target="gnomon.zoo.graph.gcn")},
        "target-with-code": {"model": model_with(target="os:system('touch canary')")},
        "target-with-attribute": {"model": model_with(target="a.b:c.d")},
        "negative-axis": {"model": model_with(inputs=[{"name": "x", "dtype": "float32", "shape": [-1, 3]}])},
        "input-dtype": {"model": model_with(inputs=[{"name": "x", "dtype": "float23", "shape": [1]}])},
        "input-range": {
            "model": model_with(inputs=[{"name": "x", "dtype": "int64", "shape": [1], "low": 5, "high": 5}])
        },
        "input-twice": {"model": model_with(inputs=[{"name": "x", "dtype": "int64", "shape": [1], "high": 9}] * 2)},
        "input-name": {"model": model_with(inputs=[{"name": "x y", "dtype": "float32", "shape": [1]}])},
        "short-sha": {"model": model_with(weights={"file": "w.bin", "sha256": "abc"})},
        "two-sources": {"model": model_with(weights={"file": "w.bin", "package": "a/b", "sha256": ZEROS})},
        "no-source": {"model": model_with(weights={"sha256": ZEROS})},
        "url-source": {"model": model_with(weights={"url": "https://example.org/w.bin", "sha256": ZEROS})},
        "onnx-without-file": {"model": {"source": "onnx", "inputs": []}},
        "huggingface-class": {"model": model_with(source="huggingface", target="os.system")},
        "env-name": {"software": {"env": {"lower": "1"}}},
        "no-cores": {"hardware": {"cpu": {"min_cores": 0}}},
        "negative-memory": {"hardware": {"memory_gib": -4}},
        "accelerator-architecture": {"hardware": {"accelerators": [{"arch_min": "hopper"}]}},
    }.items():
        yield name, task(**spec)


def imported_cases(count: int = 200) -> list[tuple[str, bytes]]:
    """`count` different malformed manifests of ML ModelScope, the same each time. Raises ValueError as `cases` does."""
    good: dict[str, Any] = {
        "name": "Small_Net", "version": "1.0", "framework": {"name": "Onnxruntime", "version": "1.6.0"},
        "container": {"amd64": {"cpu": "example/agent:cpu"}}, "description": "small", "references": ["a paper"],
        "license": "MIT",
        "inputs": [{"type": "image", "parameters": {
            "element_type": "float32", "input_layer": 0, "layout": "CHW", "color_mode": "RGB",
            "dimensions": [3, 224, 224], "mean": [1, 2, 3], "scale": 255}}],
        "output": {"type": "classification", "parameters": {"probabilities_layer": 0}},
        "model": {"base_url": "https://example.org", "graph_path": "a.onnx", "graph_checksum": "0" * 32},
        "preprocess": f"open({CANARY!r}, 'w').close()\n", "attributes": {"kind": "CNN", "top1": 71.2},
    }  # fmt: skip
    found: dict[str, bytes] = {}
    for name, content in _texts():  # faults of the text, with a name that the importer knows
        data = content if isinstance(content, bytes) else content.encode()
        found[f"text-{name}"] = data.replace(b"apiVersion: gnomon/v1", b"name: a").replace(b"spec:", b"model:")
    wrongs = (
        [1, "two"],
        {"wrong": 1},
        True,
        "wrong {{ type }}",
        -1,
        None,
        f"__import__('os').system('touch {CANARY}')",
    )
    for wrong in wrongs:
        for place, value in _places(good):
            changed = json.loads(_text(good))
            around: Any = changed
            for key in place[:-1]:
                around = around[key]
            if type(value) is not type(wrong):
                around[place[-1]] = wrong
                found[f"{type(wrong).__name__}-{len(found)}-at-{_label(place)}"] = _text(changed).encode()
    different = list({data: (name, data) for name, data in found.items()}.values())
    if len(different) < count:
        raise ValueError(f"there are {len(different)} cases, not {count}")
    return different[:: len(different) // count][:count]


def check_imported(count: int = 200) -> dict[str, Any]:
    """Import all cases, writing what they become and validating it. Returns what `check` returns, and 'imported'."""
    from click.testing import CliRunner

    from gnomon.cli import main

    runner = CliRunner()
    failures: dict[str, str] = {}
    slowest, imported, before = 0.0, 0, Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            for case, data in imported_cases(count):
                Path(f"{case}.yml").write_bytes(data)
                began = time.perf_counter()
                result = runner.invoke(main, ["import", "mlmodelscope", f"{case}.yml", "--out", case])
                slowest = max(slowest, time.perf_counter() - began)
                why = None
                if result.exit_code == 0:
                    written = sorted(map(str, Path(case).iterdir()))
                    result = runner.invoke(main, ["validate", *written])
                    imported += 1
                    why = None if result.exit_code == 0 else f"what it became is refused: {result.output[:200]}"
                elif result.exception is not None and not isinstance(result.exception, SystemExit):
                    why = f"a {type(result.exception).__name__}"
                else:
                    why = verdict(result.exit_code, result.output)
                if why is not None:
                    failures[case] = why
            canary = Path(CANARY).exists()
        finally:
            os.chdir(before)
    return {"cases": count, "passed": count - len(failures), "failures": failures, "canary": canary,
            "slowest_s": round(slowest, 3), "imported": imported}  # fmt: skip


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every key and item of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if "arguments" not in place:  # arguments may hold anything
            yield (*place, key), item
            yield from _places(item, (*place, key))


def _with(place: tuple[str | int, ...], change: Any) -> dict[str, Any]:
    """The well-formed task with one place changed; `change` maps the table or list around it and its key."""
    document = json.loads(_text(task()))
    around: Any = document
    for key in place[:-1]:
        around = around[key]
    change(around, place[-1])
    return document  # type: ignore[no-any-return]


def _label(place: tuple[str | int, ...]) -> str:
    return "-".join(map(str, place))


def _missing() -> Iterator[tuple[str, Any]]:
    for place in (
        ("apiVersion",), ("metadata",), ("metadata", "name"), ("metadata", "version"), ("spec",), ("spec", "model"),
        ("spec", "model", "source"), ("spec", "model", "target"), ("spec", "model", "inputs"),
        ("spec", "model", "inputs", 0, "name"), ("spec", "model", "inputs", 0, "dtype"),
        ("spec", "model", "inputs", 1, "shape"),
    ):  # fmt: skip
        yield f"without-{_label(place)}", _with(place, lambda around, key: around.pop(key))


def _unknown() -> Iterator[tuple[str, Any]]:
    for place, value in _places(task()):
        if isinstance(value, dict) and place[-1] not in ("labels", "arguments"):
            yield (
                f"unknown-key-in-{_label(place)}",
                _with((*place, "modle"), lambda around, key: around.update({key: 1})),
            )


def _wrong_types() -> Iterator[tuple[str, Any]]:
    for wrong in ([1, "two"], {"wrong": 1}, True, "wrong type"):

        def put(around: Any, key: Any, value: Any = wrong) -> None:
            around[key] = value

        for place, value in _places(task()):
            if type(value) is not type(wrong) and place[-1] != "arguments":
                yield f"{type(wrong).__name__}-at-{_label(place)}", _with(place, put)


def verdict(code: int, output: str) -> str | None:
    """What is wrong with an answer to a malformed manifest, None when nothing is."""
    if "Traceback" in output:
        return "a traceback"
    if code != 2:
        return f"exit code {code}"
    lines = output.splitlines()
    if not output.strip():
        return "no message"
    if len(lines) > SCREEN:
        return f"{len(lines)} lines"
    return None


@contextlib.contextmanager
def room(count: int) -> Iterator[list[Path]]:
    """The cases as files in a folder of their own, which is the current one and on the path, with code beside them."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        outside, folder = Path(name), Path(name, "manifests")
        folder.mkdir()
        (outside / "model.yaml").write_text("apiVersion: gnomon/v1\n")
        (folder / "link.yaml").symlink_to(outside / "model.yaml")
        (folder / "folder").mkdir()
        for file, examples in (("twice-a.yaml", "gcn:examples"), ("twice-b.yaml", "gcn:build")):
            twice = part("Dataset", "twice", "1.0", examples=f"gnomon.zoo.graph.{examples}")
            (folder / file).write_text(_text(twice))
        (folder / "canary_module.py").write_text(MODULE)
        (folder / "canary_package").mkdir()
        (folder / "canary_package" / "__init__.py").write_text(MODULE)
        (folder / "canary_package" / "inner.py").write_text(MODULE)
        files = []
        for case, data in cases(count):
            files.append(folder / f"{case}.yaml")
            files[-1].write_bytes(data)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        try:
            yield files
        finally:
            sys.path.remove(str(folder))
            os.chdir(before)


def check(count: int = 200, subprocesses: int = 0) -> dict[str, Any]:
    """Run all cases in this process, and some also in a process of their own.

    Returns {'cases', 'passed', 'failures': {name: why}, 'canary': did code run, 'slowest_s', 'subprocesses'}.
    """
    from click.testing import CliRunner

    from gnomon.cli import main

    runner = CliRunner()
    failures: dict[str, str] = {}
    slowest = 0.0
    with room(count) as files:
        for file in files:
            verbs = ("resolve",) if file.name.startswith("refer-") else ("validate", "resolve")
            for verb in verbs:
                began = time.perf_counter()
                result = runner.invoke(main, [verb, file.name])
                slowest = max(slowest, time.perf_counter() - began)
                crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
                why = f"a {type(result.exception).__name__}" if crashed else verdict(result.exit_code, result.output)
                if why is None and Path(CANARY).exists():
                    why = "its code ran"
                    Path(CANARY).unlink()
                if why is not None:
                    failures[file.stem] = f"{verb}: {why}"
        sample = files[:: max(1, len(files) // subprocesses)][:subprocesses] if subprocesses else []
        for file in sample:
            done = subprocess.run(
                [sys.executable, "-m", "gnomon", "resolve", file.name], capture_output=True, text=True, timeout=120
            )
            why = verdict(done.returncode, done.stdout + done.stderr)
            if why is not None:
                failures[file.stem] = f"in a process of its own: {why}"
        canary = Path(CANARY).exists() or any("ran" in why for why in failures.values())
    passed = len(files) - len(failures)
    return {"cases": len(files), "passed": passed, "failures": failures, "canary": canary,
            "slowest_s": round(slowest, 3), "subprocesses": len(sample)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--subprocesses", type=int, default=8)
    parser.add_argument("--imported", action="store_true", help="manifests of ML ModelScope, through gnomon import")
    arguments = parser.parse_args()
    if arguments.imported:
        result = check_imported(arguments.count)
        for name, why in result["failures"].items():
            print(f"{name}: {why}")
        print(
            f"{result['passed']} of {result['cases']} malformed manifests of ML ModelScope: {result['imported']} "
            f"became valid manifests, the others ended with exit code 2 and a message; code run: "
            f"{'YES' if result['canary'] else 'none'}; slowest {result['slowest_s']} s"
        )
        return 0 if result["passed"] == result["cases"] and not result["canary"] else 1
    result = check(arguments.count, arguments.subprocesses)
    for name, why in result["failures"].items():
        print(f"{name}: {why}")
    print(
        f"{result['passed']} of {result['cases']} malformed manifests: exit code 2, at most {SCREEN} lines, "
        f"no traceback; code run: {'YES' if result['canary'] else 'none'}; slowest {result['slowest_s']} s; "
        f"{result['subprocesses']} of them also in processes of their own"
    )
    return 0 if result["passed"] == result["cases"] and not result["canary"] else 1


if __name__ == "__main__":
    sys.exit(main())
