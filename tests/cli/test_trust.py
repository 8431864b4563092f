import json

from click.testing import CliRunner

from gnomon.cli import main
from gnomon.spec.load import load
from gnomon.spec.trust import trusted
from tests.spec.write import MODEL, SIZES, manifest, task, write

INLINE = {**MODEL, "stages": {"preprocess": {"code": "def preprocess(context, batch):\n    return batch\n"}}}


def run(*arguments, **options):
    return CliRunner().invoke(main, ["trust", *map(str, arguments)], **options)


def test_the_code_is_shown_and_agreed_to_and_taken_back(tmp_path):
    path = write(tmp_path, "task.yaml", task(model=INLINE))
    digest = load(path).manifest().digest
    no = run(path, input="n\n")
    assert no.exit_code == 1
    assert "def preprocess(context, batch)" in no.stderr
    assert trusted() == {}
    assert CliRunner().invoke(main, ["resolve", str(path)]).exit_code == 2
    assert run(path, input="y\n").stdout == f"{digest} Task small@1.0.0\n"
    assert CliRunner().invoke(main, ["resolve", str(path)]).exit_code == 0
    assert json.loads(run("--json").stdout) == {digest: "Task small@1.0.0"}
    assert run(path, "--remove").exit_code == 0
    assert run("--json").stdout == "{}\n"
    assert run(path, "--remove").exit_code == 2


def test_code_in_a_matrix_is_shown_and_agreed_to_as_well(tmp_path):
    document = manifest("Task", dims=SIZES, matrix={"model": [MODEL, INLINE]})
    path = write(tmp_path, "task.yaml", document)
    assert CliRunner().invoke(main, ["resolve", f"{path}#2"]).exit_code == 2
    result = run(path, "--yes")
    assert "def preprocess(context, batch)" in result.stderr
    assert CliRunner().invoke(main, ["resolve", f"{path}#2"]).exit_code == 0


def test_a_manifest_without_code_needs_no_trust(tmp_path):
    result = run(write(tmp_path, "task.yaml", task()), "--yes")
    assert result.exit_code == 2
    assert "holds no inline code" in result.output
