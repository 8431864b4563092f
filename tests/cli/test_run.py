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
