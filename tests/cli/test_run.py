import json

from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.write import task, write

LINEAR = {
    "source": "python",
    "target": "torch.nn:Linear",
    "arguments": {"in_features": 8, "out_features": 3},
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["B", 8]}],
}
PROTOCOL = {"sessions": 1, "calls": 3, "warmup_s": 0, "timeout_s": 100}


def test_a_task_is_looked_at_down_to_its_own_level_when_nobody_says(tmp_path):
    path = write(tmp_path, "task.yaml", task(dims={"B": 4}, model=LINEAR, protocol=PROTOCOL, trace_level="layer"))
    result = CliRunner().invoke(main, ["run", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert [run["level"] for run in json.loads(result.stdout)["levels"]] == ["model", "layer"]


def test_levels_are_asked_for_by_name_and_library_is_another_name_for_kernel(tmp_path):
    path = write(tmp_path, "task.yaml", task(dims={"B": 4}, model=LINEAR, protocol=PROTOCOL))
    result = CliRunner().invoke(main, ["run", str(path), "--json", "--level", "library", "--level", "hardware"])
    assert result.exit_code == 0, result.output
    measurement = json.loads(result.stdout)
    assert [run["level"] for run in measurement["levels"]] == ["model", "kernel", "hardware"]
    assert {counter["name"] for counter in measurement["counters"]} >= {"cycles", "page-faults"}
    assert any(span["level"] == "kernel" for span in measurement["spans"])


def test_a_level_that_does_not_exist_is_refused_with_those_that_do():
    result = CliRunner().invoke(main, ["run", "gcn-node-classification", "--level", "kernels"])
    assert result.exit_code == 2
    assert "'kernels' is not one of 'application', 'model', 'layer', 'operator', 'kernel'" in result.output
