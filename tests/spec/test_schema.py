import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gnomon.core.errors import UnknownName
from gnomon.core.records import StructureError
from gnomon.spec.find import manifest_files
from gnomon.spec.load import load
from gnomon.spec.manifest import KINDS, read
from gnomon.spec.schema import BEYOND, schema
from tests.spec.test_manifest import WHOLE, changed, leaves
from tests.spec.write import MODEL, manifest, task

CHECK = {kind: Draft202012Validator(schema(kind)) for kind in KINDS}
SAMPLES = [
    WHOLE,
    task(model={"ref": "a@^1"}, software={"file": "./s.yaml"}, extends={"ref": "b"}),
    manifest(
        "Task",
        scenario={"name": "server", "target_qps": 5, "latency_bound_s": 0.5, "percentile": 0.9, "max_queries": 200},
        trace_level="layer",
        metrics=["cpu_p50_s"],
        matrix={"model": [{"ref": "a"}, MODEL], "dtype": ["float64"], "dims": {"B": [1, 2]}},
    ),
    manifest("Model", **MODEL, max_dims={"V": 9}, weights={"package": "a/b", "sha256": "0" * 64}),
    manifest(
        "Model",
        **MODEL,
        outputs=[{"name": "y", "dtype": "float32", "shape": ["V"], "layout": "V"}],
        stages={"preprocess": {"target": "a:b", "arguments": {"k": 1}}, "postprocess": {"code": "x"}},
    ),
    manifest("Dataset", examples="a:b", provides={"x": {"dtype": "int8", "shape": [1, "B"], "layout": "AB"}}),
    manifest(
        "Dataset",
        splits={
            "train": {"source": {"generate": "a:b", "arguments": {"k": 1}, "seed": 2}, "count": 5},
            "test": {
                "source": {"url": "https://example.org/x"},
                "sha256": "0" * 64,
                "schema": {"x": {"dtype": "int8", "shape": [1]}},
            },
        },
        feeds="test",
    ),
    manifest(
        "ReferenceLog",
        lock={"task": "a", "version": "1", "parts": {"task": "sha256:" + "0" * 64}, "target": "a", "dims": {"B": 1}},
        device="cpu",
        machine={"cpu": "x"},
        software={"torch": "2.9"},
        metrics={"latency_p50_s": {"value": 0.5, "unit": "s", "n": 3, "ci95": [0.4, 0.6], "samples": [0.5]}},
        outputs=[
            {
                "name": "y",
                "dtype": "float32",
                "shape": [2, 0],
                "digest": "sha256:" + "0" * 64,
                "file": "y.npy",
                "sha256": "0" * 64,
                "atol": 0.1,
                "rtol": 0,
            },
        ],
        author="somebody",
        date="2026-01-01",
    ),
    manifest("Software", packages=["a"], determinism={"deterministic_algorithms": True}),
    manifest(
        "Hardware", cpu={"min_cores": 2}, accelerators=[{"vendor": "NVIDIA", "arch_min": "sm_80", "memory_gib": 8}]
    ),
]
VALUES = st.sampled_from(
    [
        "",
        "x",
        "B",
        "a:b",
        "a\n",
        "float32",
        "1.0",
        "a@^1",
        "0" * 64,
        0,
        1,
        -1,
        2.5,
        10**9 + 1,
        2**63,
        1e301,
        True,
        None,
        [],
        {},
        [1],
        ["a"],
        {"B": 1},
        {"ref": "a"},
        {"a": "b"},
    ]
)
CROSS_FIELD = ("exactly one of", "wants 'target'", "wants 'weights'", "to be a callable", "to be a class",
               "wants inputs named",
               "go together", "a letter of its own", "an empty matrix", "both in the task", "the metric 'quality'",
               "a split has exactly", "takes neither", "a split from a file", "a dataset has", "exclude each",
               "none of the splits",
               "'file' and 'sha256' go",
               "needs target_qps", "belongs to scenario", "less than min_", "exclude each other", "may never be",
               "belongs to scenarios",
               "same name", "below 'high'", "wanted 'model' (inline")  # fmt: skip


def mutate(data, document):
    """One key or item replaced, removed or added somewhere."""
    places = [place for place, _ in leaves(document)]
    place = data.draw(st.sampled_from(places))
    place = place[: data.draw(st.integers(1, len(place)))]
    kind = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if kind == "replace":
        return changed(document, place, data.draw(VALUES))
    around = copy.deepcopy(document)
    inner = around
    for key in place[:-1]:
        inner = inner[key]
    if kind == "remove":
        inner.pop(place[-1])
    elif isinstance(inner, dict):
        inner[data.draw(st.sampled_from(["extra", "B", "x y", "ref", "seed", ""]))] = data.draw(VALUES)
    else:
        inner.append(data.draw(VALUES))
    return around


@settings(max_examples=400)
@given(st.data())
def test_the_schema_accepts_exactly_what_the_reader_accepts(data):
    document = data.draw(st.sampled_from(SAMPLES))
    for _ in range(data.draw(st.integers(0, 2))):
        document = mutate(data, document)
    kind = document.get("kind")
    validator = CHECK[kind if isinstance(kind, str) and kind in CHECK else "Task"]
    problems = problems_of(document)
    beyond = all(any(rule in text for rule in CROSS_FIELD) for text in problems)
    assert validator.is_valid(document) == beyond, (problems, [e.message for e in validator.iter_errors(document)])


EDGES = [
    0,
    -1,
    1,
    10**9,
    10**9 + 1,
    2**63 - 1,
    2**63,
    1e300,
    1e301,
    -1.5,
    "",
    "x y",
    "lower",
    "Upper",
    "1.0",
    "a:b",
    True,
    None,
]


@pytest.mark.parametrize("document", SAMPLES, ids=lambda d: d["kind"])
def test_schema_and_reader_agree_at_the_edges_of_every_leaf(document):
    validator = CHECK[document["kind"]]
    for place, value in leaves(document):
        for edge in [
            *EDGES,
            *([f"{value}\n", f" {value}", value * 70] if isinstance(value, str) else [value - 1, -value]),
        ]:
            other = changed(document, place, edge)
            beyond = all(any(rule in text for rule in CROSS_FIELD) for text in problems_of(other))
            assert validator.is_valid(other) == beyond, (place, edge, problems_of(other))


def problems_of(document):
    try:
        read(document)
    except StructureError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_is_itself_valid_and_names_the_rules_beyond_it(kind):
    Draft202012Validator.check_schema(schema(kind))
    assert all(rule in schema(kind)["$comment"] for rule in BEYOND)


@pytest.mark.parametrize("path", manifest_files(), ids=lambda p: p.stem)
def test_shipped_manifests_are_valid_under_the_schema(path):
    document = load(path).document
    assert list(CHECK[document["kind"]].iter_errors(json.loads(json.dumps(document)))) == []


def test_an_unknown_kind_offers_the_nearest():
    with pytest.raises(UnknownName, match=r"no kind of manifest is called 'Taks'. Did you mean 'Task'"):
        schema("Taks")
