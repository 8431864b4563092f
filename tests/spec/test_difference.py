import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gnomon.cli import main
from gnomon.core.errors import ManifestError
from gnomon.spec.difference import ASPECTS, difference, judge
from tests.spec.write import MODEL, manifest, task, write

CHANGES = {
    "model": {"model": {**MODEL, "arguments": {**MODEL["arguments"], "hidden": 16}}},
    "dataset": {"dataset": {"examples": "gnomon.zoo.graph.gcn:examples"}},
    "software": {"software": {"packages": ["torch"]}},
    "hardware": {"hardware": {"memory_gib": 1}},
    "setting": {"threads": 2},
}


@given(st.sets(st.sampled_from(ASPECTS)))
def test_the_aspects_that_were_changed_are_those_that_differ(tmp_path_factory, aspects):
    folder = tmp_path_factory.mktemp("two")
    changes = {key: value for aspect in aspects for key, value in CHANGES[aspect].items()}
    found = difference(write(folder, "a.yaml", task()), write(folder, "b.yaml", task("other", "2.0", **changes)))
    assert set(found.differences) == aspects
    assert found.verdict == judge(aspects)
    back = difference(folder / "b.yaml", folder / "a.yaml")
    assert {a: {k: (y, x) for k, (x, y) in keys.items()} for a, keys in back.differences.items()} == found.differences


def test_verdicts_in_words():
    assert [judge(ASPECTS[:n]) for n in range(4)] == [
        "the same", "controlled", "confounded (2 aspects)", "confounded (3 aspects)",
    ]  # fmt: skip


def test_keys_are_named_down_to_the_value_with_both_sides(tmp_path):
    other = {**MODEL, "arguments": {"in_features": "$F", "hidden": 8, "classes": 4}, "seed": 1}
    a, b = write(tmp_path, "a.yaml", task()), write(tmp_path, "b.yaml", task(model=other, dims={"V": 16, "E": 33}))
    assert difference(a, b).differences == {
        "model": {"arguments.classes": (3, 4), "arguments.layers": (2, None), "seed": (None, 1)},
        "setting": {"dims.E": (32, 33), "dims.F": (4, None)},
    }


def test_where_a_part_stands_and_how_it_is_written_does_not_count(tmp_path):
    write(tmp_path, "model.yaml", manifest("Model", "a-model", "1.2.0", **MODEL, seed=0))
    a = write(tmp_path, "a.yaml", task(threads=1))
    b = write(tmp_path, "b.yaml", task(model={"ref": "a-model@^1"}))
    c = write(tmp_path, "c.yaml", manifest("Task", "child", "1.0", extends={"file": "./b.yaml"}))
    assert difference(a, b).verdict == difference(b, c).verdict == difference(a, c).verdict == "the same"


def test_combinations_of_a_matrix_are_compared_by_number(tmp_path):
    document = manifest(
        "Task", dims={"F": 4}, model=MODEL, matrix={"dims": {"V": [8, 9]}, "dtype": ["float32", "float64"]}
    )
    path = write(tmp_path, "m.yaml", document)
    assert difference(f"{path}#1", f"{path}#2").differences == {"setting": {"dims.V": (8, 9)}}
    with pytest.raises(ManifestError, match="one is wanted"):
        difference(path, path)


def test_what_this_machine_lacks_does_not_matter_and_what_is_missing_does(tmp_path):
    a = write(tmp_path, "a.yaml", task(software={"packages": ["no-such-package"]}))
    b = write(tmp_path, "b.yaml", task(hardware={"ref": "absent"}))
    assert difference(a, a).verdict == "the same"
    with pytest.raises(ManifestError, match="no hardware is called 'absent'"):
        difference(a, b)


def test_the_command_prints_the_verdict_last(tmp_path):
    a, b = write(tmp_path, "a.yaml", task()), write(tmp_path, "b.yaml", task(threads=2, hardware={"memory_gib": 1}))
    result = CliRunner().invoke(main, ["diff", str(a), str(b)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "confounded (2 aspects)"
    assert "threads" in result.stdout
    document = json.loads(CliRunner().invoke(main, ["diff", str(a), str(b), "--json"]).stdout)
    assert document["differences"]["setting"] == {"threads": [None, 2]}
