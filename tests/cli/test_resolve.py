import json

from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.spec.resolve import resolve
from tests.spec.write import MODEL, manifest, task, write


def run(*arguments):
    return CliRunner().invoke(main, ["resolve", *map(str, arguments)])


def test_json_is_the_task_itself():
    result = run("gcn-node-classification", "--dim", "V=64", "--json")
    assert result.exit_code == 0
    assert from_json(json.loads(result.stdout)) == resolve("gcn-node-classification", dims={"V": 64})


def test_a_lock_is_written_and_a_later_change_fails_the_check(tmp_path):
    path = write(tmp_path, "task.yaml", task())
    assert run(path, "--lock", tmp_path / "task.lock").exit_code == 0
    assert run(path, "--check", tmp_path / "task.lock").exit_code == 0
    write(tmp_path, "task.yaml", task(seed=1))
    result = run(path, "--check", tmp_path / "task.lock")
    assert result.exit_code == 1
    assert "is not what" in result.output
    (tmp_path / "task.lock").write_text("{}")
    assert run(path, "--check", tmp_path / "task.lock").exit_code == 4


def test_explain_prints_decisions_for_people_and_for_programs():
    assert "dimension L = 64 (asked for)" in run("sentence-embedding", "--seqlen", 64, "--explain").output
    document = json.loads(run("sentence-embedding", "--explain", "--json").stdout)
    assert "dimension L = 128 (task)" in document["decisions"]
    assert document["task"]["schema"] == "gnomon/task/1"


def test_search_folders_are_looked_through(tmp_path):
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", "model.yaml", manifest("Model", "a-model", "1.0", **MODEL))
    path = write(tmp_path, "task.yaml", task(model={"ref": "a-model"}))
    assert run(path).exit_code == 2
    assert run(path, "--search", tmp_path / "parts").exit_code == 0


def test_what_is_missing_here_has_exit_code_3(tmp_path):
    path = write(tmp_path, "task.yaml", task(software={"packages": ["no-such-package"]}))
    result = run(path)
    assert result.exit_code == 3
    assert "NotRunnable: " in result.output
    assert "pip install 'no-such-package'" in result.output
