import itertools
import json
import time

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gnomon.cli import main
from gnomon.core.errors import ManifestError
from gnomon.core.records import structure
from gnomon.spec.combine import combinations
from gnomon.spec.manifest import Matrix
from gnomon.spec.matrix import expand, plan
from gnomon.spec.resolve import resolve
from tests.spec.write import HOST, INPUTS, MODEL, SIZES, manifest, task, write

NARROW = {**MODEL, "inputs": [{**INPUTS[0], "shape": ["V", 5]}, INPUTS[1]]}
DATA = {
    "examples": "gnomon.zoo.graph.gcn:examples",
    "provides": {
        "features": {"dtype": "float32", "shape": ["V", 4]},
        "edge_index": {"dtype": "int64", "shape": [2, "E"]},
    },
}


def varied(folder, name="task.yaml", model=None, **spec):
    document = manifest("Task", "small", "1.0.0", dims=SIZES, **({"model": model} if model else {}), **spec)
    return write(folder, name, document)


def test_a_matrix_is_the_product_in_a_stable_order(tmp_path):
    matrix = {"dims": {"V": [8, 16], "E": [4]}, "dtype": ["float32", "bfloat16"]}
    found = expand(varied(tmp_path, model=MODEL, matrix=matrix))
    assert [(t.dtype, t.dims["V"], t.dims["E"], t.dims["F"]) for t in plan(found)] == [
        ("float32", 8, 4, 4), ("float32", 16, 4, 4), ("bfloat16", 8, 4, 4), ("bfloat16", 16, 4, 4),
    ]  # fmt: skip
    assert found[2].choices == {"dtype": "bfloat16", "dims.E": "4", "dims.V": "8"}
    assert [one.number for one in found] == [1, 2, 3, 4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True), st.integers(1, 3), st.integers(0, 2))
def test_combinations_are_those_of_nested_loops(sizes, models, dtypes):
    names = ["float32", "float64", "float16"][:dtypes]
    document = {"model": [{"ref": f"m{i}"} for i in range(models)], "dtype": names, "dims": {"B": sizes, "A": [1, 2]}}
    matrix = structure(Matrix, document)
    loops = []
    for m in range(models):
        for d in range(dtypes) if dtypes else [None]:
            for a, b in itertools.product(range(2), range(len(sizes))):
                loops.append({"model": m, **({} if d is None else {"dtype": d}), "dims.A": a, "dims.B": b})
    assert combinations(matrix) == loops


def test_a_combination_is_the_task_that_would_have_been_written_so(tmp_path):
    path = varied(tmp_path, model=MODEL, matrix={"dims": {"V": [8, 9]}, "software": [{"packages": ["torch"]}]})
    alone = varied(tmp_path, "alone.yaml", model=MODEL, software={"packages": ["torch"]})
    alone.write_text(alone.read_text().replace('"V": 16', '"V": 9'))
    written = resolve(alone)
    combined = resolve(f"{path}#2")
    assert (combined.digest, combined.lock) == (written.digest, written.lock)


def test_alternatives_are_named_by_file_and_reference_and_keep_the_place_of_their_fault(tmp_path):
    write(tmp_path, "model.yaml", manifest("Model", "a-model", "1.2", **MODEL))
    path = varied(tmp_path, matrix={"model": [{"ref": "a-model@^1"}, {"file": "./model.yaml"}, {"ref": "absent"}]})
    one, two, three = expand(path)
    assert (one.choices, two.choices) == ({"model": "a-model@^1"}, {"model": "./model.yaml"})
    assert one.task.lock == two.task.lock | {"task": one.task.lock["task"]}
    assert three.task is None
    assert "spec.matrix.model[2]: no model is called 'absent'" in three.why_not


def test_what_does_not_fit_is_told_apart_from_what_this_machine_lacks(tmp_path):
    path = varied(
        tmp_path,
        dataset=DATA,
        matrix={"model": [MODEL, NARROW], "hardware": [{"memory_gib": 1}, {"memory_gib": 999}]},
    )
    found = expand(path, host=HOST)
    assert [(one.task is not None, one.fits) for one in found] == [
        (True, True), (False, True), (False, False), (False, False),
    ]  # fmt: skip
    assert "wanted 999 GiB" in found[1].why_not
    assert "axis 1: wanted 5, got 4" in found[2].why_not


def test_a_matrix_that_is_inherited_is_expanded_too(tmp_path):
    varied(tmp_path, "base.yaml", model=MODEL, matrix={"dims": {"V": [8, 9]}})
    child = write(tmp_path, "child.yaml", manifest("Task", "child", "1.0", extends={"file": "./base.yaml"}, seed=3))
    assert [(t.dims["V"], t.seed) for t in plan(expand(child))] == [(8, 3), (9, 3)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "2 combinations, and one is wanted: name it as .*task.yaml#1"),
        ("#0", "wanted a combination from 1 to 2, got 0"),
        ("#3", "wanted a combination from 1 to 2, got 3"),
    ],
)
def test_one_combination_must_be_named(tmp_path, target, message):
    path = varied(tmp_path, model=MODEL, matrix={"dims": {"V": [8, 9]}})
    with pytest.raises(ManifestError, match=message):
        resolve(f"{path}{target}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"matrix": {}}, "an empty matrix: wanted alternatives of model, dataset"),
        ({"matrix": {"model": [{"ref": "a"}]}}, "'model' stands both in the task and in its matrix"),
        ({"matrix": {"dims": {"V": []}}}, "spec.matrix.dims.V: wanted a value that is not empty"),
        ({"matrix": {"dims": {"V": [0]}}}, r"spec.matrix.dims.V\[0\]: wanted a whole number from 1"),
        ({"matrix": {"threads": [1]}}, "spec.matrix.threads: unknown key"),
    ],
)
def test_what_no_matrix_may_say(tmp_path, spec, message):
    with pytest.raises(ManifestError, match=message):
        resolve(varied(tmp_path, model=MODEL, **spec))


def test_a_matrix_that_nothing_fits_and_one_without_end_are_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"none of 1 combinations is a task; the first: .*no model is called"):
        expand(varied(tmp_path, matrix={"model": [{"ref": "absent"}]}))
    with pytest.raises(ManifestError, match=r"no spec.matrix"):
        expand(write(tmp_path, "plain.yaml", task()))
    with pytest.raises(ManifestError, match="the task has no matrix, so no combination 1"):
        resolve(f"{tmp_path / 'plain.yaml'}#1")
    sizes = {name: list(range(1, 30)) for name in "VEF"}
    with pytest.raises(ManifestError, match="24,389 combinations; a task has at most 10,000"):
        expand(varied(tmp_path, model=MODEL, matrix={"dims": sizes}))


def test_twenty_combinations_resolve_within_a_second_each(tmp_path):
    path = varied(
        tmp_path, model=MODEL, matrix={"dims": {"V": list(range(8, 18))}, "software": [{}, {"python": ">=3"}]}
    )
    start = time.process_time()
    assert len(plan(expand(path))) == 20
    assert time.process_time() - start < 20


def test_the_command_lists_them(tmp_path):
    path = varied(tmp_path, model=MODEL, matrix={"dims": {"V": [8, 9]}, "hardware": [{}, {"memory_gib": 99999}]})
    result = CliRunner().invoke(main, ["resolve", str(path), "--matrix"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].startswith(f"{path}#2  hardware=inline 1 dims.V=9  fits")
    assert "not here: " in lines[2]
    document = json.loads(CliRunner().invoke(main, ["resolve", str(path), "--matrix", "--json"]).stdout)
    assert [one["fits"] for one in document] == [True] * 4
    assert [one["task"] is None for one in document] == [False, False, True, True]
