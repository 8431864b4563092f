import json

from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.write import task, write


def test_the_shipped_tasks_are_listed():
    result = CliRunner().invoke(main, ["tasks", "--json"])
    entries = {e["name"]: e for e in json.loads(result.stdout)}
    assert entries["resnet50-classification"]["dims"] == {"B": 1, "S": 224}
    assert entries["sentence-embedding"]["mode"] == "inference"


def test_people_get_a_table_with_the_reason_why_a_task_cannot_run(tmp_path):
    write(tmp_path, "task.yaml", task("hungry", hardware={"memory_gib": 1_000_000}))
    result = CliRunner().invoke(main, ["tasks", "--search", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if line.startswith("hungry"))
    assert "wanted" in row
