import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.spec.find import shipped_folder
from gnomon.spec.schema import schema
from tests.spec.write import task, write

SHIPPED = shipped_folder() / "text" / "sentence_embedding.yaml"


def run(*arguments):
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def test_good_manifests_print_their_digest(tmp_path):
    result = run(SHIPPED, write(tmp_path, "task.yaml", task()))
    assert result.exit_code == 0
    assert "Task sentence-embedding@1.0.0 sha256:" in result.output
    assert "Task small@1.0.0 sha256:" in result.output


def test_problems_of_all_files_come_on_one_screen_with_exit_code_2(tmp_path):
    files = [write(tmp_path, f"{i}.yaml", task(threads=0, dtype="x", mode="y")) for i in range(20)]
    result = run(*files)
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 21
    assert "0.yaml:" in result.output
    assert result.output.splitlines()[-1] == "... and 40 more"


def test_json_is_one_document_with_a_verdict_for_each_file(tmp_path):
    result = run(SHIPPED, write(tmp_path, "bad.yaml", "a: 1"), "--json")
    assert result.exit_code == 2
    good, bad = json.loads(result.stdout)
    assert (good["valid"], good["kind"], good["name"]) == (True, "Task", "sentence-embedding")
    assert bad["valid"] is False
    assert "kind: wanted one of" in bad["problems"][0]


@pytest.mark.parametrize("kind", ["Task", "Model", "Dataset", "Software", "Hardware"])
def test_the_schema_of_a_kind_is_printed(kind):
    assert json.loads(run("--schema", kind).stdout) == schema(kind)


def test_usage_faults_have_exit_code_2():
    assert run().exit_code == 2
    result = run("--schema", "Taks")
    assert result.exit_code == 2
    assert "Did you mean 'Task'?" in result.output
