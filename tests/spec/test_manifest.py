import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.records import StructureError, to_json
from gnomon.spec.find import manifest_files
from gnomon.spec.load import load, parse
from gnomon.spec.manifest import read, without_defaults
from tests.spec.write import INPUTS, MODEL, manifest, task

WHOLE = task(
    mode="training",
    dtype="bfloat16",
    threads=2,
    seed=3,
    model={
        **MODEL,
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["V", 3], "layout": "VC", "semantics": "a score"}],
        "stages": {
            "preprocess": {"target": "a.b:c", "arguments": {"size": 3}},
            "postprocess": {"code": "def postprocess(context, batch): ..."},
        },
    },
    dataset={"examples": "a.b:c", "files": {"x": {"file": "x.txt", "sha256": "0" * 64}}},
    software={
        "python": ">=3.11",
        "packages": ["torch"],
        "env": {"OMP_NUM_THREADS": "café"},
        "determinism": {"tf32": True},
    },
    hardware={"cpu": {"arch": ["x86_64"], "isa": ["avx2"]}, "memory_gib": 4.5, "accelerators": [{"count": 2}]},
    training={"optimizer": "sgd", "learning_rate": 0.5, "loss": "sum"},
    quality={"evaluate": "a:b", "metric": "m", "higher_is_better": False, "largest_loss": 0.25, "least_cosine": 0.5},
    scenario={"name": "offline", "min_queries": 7, "min_duration_s": 2.5, "seed": 4},
    trace_level="layer",
    metrics=["quality", "cpu_p50_s"],
    protocol={"sessions": 7, "calls": 9, "warmup_s": 2.5, "timeout_s": 30.5},
)


def leaves(value, place=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*place, key))
    else:
        yield place, value


def changed(document, place, value):
    copy = json.loads(json.dumps(document))
    around = copy
    for key in place[:-1]:
        around = around[key]
    around[place[-1]] = value
    return copy


def other(value):
    """Another value of the same type; None when the type has no other that is allowed everywhere."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if value >= 1 else value / 2 + 0.01
    known = {"training": "inference", "bfloat16": "float16", "sgd": "adam", "sum": "mean", "python": "huggingface"}
    known |= {"1.0": "2.0", "abc@^1.0": "abc@^2.0"}
    known |= {"layer": "model", "quality": "throughput_per_s", "cpu_p50_s": "latency_p50_s", "offline": "single-stream"}
    known |= {"float32": "float64", "int64": "int32", "0" * 64: "1" * 64}
    return known.get(value, value[:-1] + ("Z" if value[-1].isupper() else "z"))


LEAVES = [
    (place, value)
    for place, value in leaves(WHOLE)
    if place[0] == "spec" and place not in {("spec", "model", "source")}  # another source wants other keys
]


LOCK = {"task": "a", "version": "1.0", "parts": {"task": "sha256:" + "0" * 64}, "target": "abc", "dims": {"B": 1}}
OTHERS = [
    manifest(
        "Dataset",
        splits={
            "train": {"source": {"generate": "a.b:c", "arguments": {"rows": 3}, "seed": 2}, "count": 3},
            "test": {"source": {"url": "https://example.org/x"}, "sha256": "0" * 64},
            "rest": {
                "source": {"package": "a/b"}, "sha256": "0" * 64, "schema": {"x": {"dtype": "float32", "shape": [2]}}
            },
        },
        feeds="train",
    ),
    manifest(
        "Task",
        matrix={"model": [{"ref": "abc@^1.0"}, MODEL], "dtype": ["bfloat16"], "dims": {"B": [3]}},
        software={"file": "./software.yaml"},
        extends={"ref": "abc"},
    ),
    manifest(
        "ReferenceLog",
        lock=LOCK,
        device="cpux",
        machine={"cpu": "abc", "cores": 3},
        software={"torch": "2.9.1"},
        metrics={"cpu_p50_s": {"value": 1.5, "unit": "s", "n": 3, "ci95": [1.5, 2.5], "samples": [1.5]}},
        outputs=[
            {"name": "out", "dtype": "float32", "shape": [2], "digest": "sha256:" + "0" * 64, "file": "a.npy",
             "sha256": "0" * 64, "atol": 1.5, "rtol": 2.5},
        ],
        author="abc",
        date="2026-01-01",
    ),
]  # fmt: skip
STRUCTURAL = {("spec", "feeds"), ("spec", "matrix", "model", 1, "source")}  # another value wants other keys


@pytest.mark.parametrize("document", OTHERS, ids=lambda d: d["kind"])
def test_every_leaf_of_the_other_kinds_counts_too(document):
    digest, seen = read(document).digest, set()
    for place, value in leaves(document):
        if place[0] != "spec" or place in STRUCTURAL:
            continue
        changed_value = "sha256:" + "1" * 64 if str(value).startswith("sha256:") else other(value)
        seen.add(read(changed(document, place, changed_value)).digest)
        assert digest not in seen, place
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("place", "value"), LEAVES, ids=lambda x: ".".join(map(str, x)) if isinstance(x, tuple) else ""
)
def test_every_leaf_counts_for_the_digest(place, value):
    assert read(changed(WHOLE, place, other(value))).digest != read(WHOLE).digest


def test_name_version_and_kind_count_and_the_description_does_not():
    digest = read(WHOLE).digest
    for key in ("name", "version"):
        assert read(changed(WHOLE, ("metadata", key), "2")).digest != digest
    assert read(changed(WHOLE, ("metadata", "description"), "other words")).digest == digest
    software, hardware = (read(manifest(kind)) for kind in ("Software", "Hardware"))
    assert software.digest != hardware.digest


def shuffled(value, random):
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


@given(st.randoms(use_true_random=False), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["NFC", "NFD"]))
def test_the_digest_does_not_depend_on_the_notation(random, line_end, form):
    text = "# a comment\n" + json.dumps(shuffled(WHOLE, random), indent=random.choice([1, 4]), ensure_ascii=False)
    data = unicodedata.normalize(form, text).replace("\n", line_end).encode()
    assert parse(Path("x.yaml"), data).manifest().digest == read(WHOLE).digest


def test_a_default_that_is_written_out_says_nothing_new():
    written = task(threads=1, seed=0, protocol={"sessions": 3}, quality={"least_cosine": 0.99}, mode="inference")
    assert read(written).digest == read(task()).digest


@pytest.mark.parametrize("path", manifest_files(), ids=lambda p: p.stem)
def test_shipped_manifests_survive_the_way_to_json_and_back(path):
    once = load(path).manifest()
    again = read(json.loads(json.dumps(to_json(once))))
    assert again == once
    assert again.digest == once.digest
    head = {"apiVersion": "gnomon/v1", "kind": once.kind, "metadata": to_json(once.metadata)}
    assert read({**head, "spec": without_defaults(once.spec)}) == once


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "wanted a manifest with the keys apiVersion, kind, metadata and spec, got nothing"),
        ([1], "got a list"),
        (
            {"kind": "Taks"},
            "kind: wanted one of Task, Model, .*, Hardware, ReferenceLog; got 'Taks'. Did you mean 'Task'",
        ),
        (task(model={"ref": "a@^1", "file": "b"}), r"spec.model.file: unknown key"),
        (task(model={**MODEL, "source": "onnx"}), "source 'onnx' wants 'weights'"),
        (task(model={"source": "python", "inputs": []}), "source 'python' wants 'target'"),
        (task(model={"source": "external", "inputs": []}), "source 'external' wants 'target'"),
        (
            task(model={**MODEL, "inputs": [{**INPUTS[0], "name": "x:0"}]}),
            "wants inputs named as arguments are, got 'x:0'",
        ),
        (task(model={**MODEL, "target": "a.b"}), "wanted 'target' to be a callable of an installed package"),
        (task(model={**MODEL, "target": "a.b:c.d"}), "wanted 'target' to be a callable"),
        (task(model={**MODEL, "inputs": INPUTS * 2}), "two inputs have the same name: edge_index, features"),
        (
            task(model={**MODEL, "inputs": [{**INPUTS[0], "low": 2, "high": 1}]}),
            "wanted 'low' below 'high', got 2 and 1",
        ),
        (
            task(model={**MODEL, "outputs": [{"name": "y", "dtype": "int8", "shape": [1]}] * 2}),
            "two outputs have the same name: y",
        ),
        (
            task(model={**MODEL, "inputs": [{**INPUTS[0], "layout": "VFX"}]}),
            "wanted a layout with a letter of its own for each of 2 axes, got 'VFX'",
        ),
        (task(model={**MODEL, "inputs": [{**INPUTS[0], "layout": "VV"}]}), "a letter of its own .* got 'VV'"),
        (task(model={**MODEL, "stages": {"preprocess": {}}}), "exactly one of 'target' and 'code'"),
        (task(model={**MODEL, "stages": {"prepare": {}}}), "spec.model.stages.prepare: unknown key"),
        (task(model={**MODEL, "stages": {"preprocess": {"target": "os.system"}}}), "wanted a callable of an installed"),
        (task(model={**MODEL, "weights": {"sha256": "0" * 64}}), "wanted exactly one of 'file' and 'package'"),
        (manifest("Task"), r"wanted 'model' \(inline"),
        (task(quality={"metric": "m"}), "'evaluate' and 'metric' go together"),
        (task(dims={"B": -1}), "spec.dims.B: wanted a whole number from 1 to 1,000,000,000, got -1"),
        (task(dims={"b": 1}), "spec.dims.b: wanted the name of a dimension"),
    ],
)
def test_what_no_manifest_may_say(document, message):
    with pytest.raises(StructureError, match=message):
        read(document)
