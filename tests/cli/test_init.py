import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.onnx_files import write_onnx

ONNX = ["--source", "onnx", "--weights", "net.onnx"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_onnx(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, said=None):
    return CliRunner().invoke(main, list(map(str, arguments)), input=said)


def test_options_alone_write_a_file_that_validates_and_resolves(here):
    result = run("init", "--kind", "task", *ONNX, "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote net.yaml; next: gnomon resolve net.yaml --explain\n"
    assert run("validate", "net.yaml").exit_code == 0
    assert run("resolve", "net.yaml").exit_code == 0
    assert "# pinned: one changed byte is refused" in (here / "net.yaml").read_text(encoding="utf-8")


def test_answers_make_the_same_file_as_options(here):
    run("init", "options.yaml", *ONNX, "--yes")
    said = ["task", "onnx", "net.onnx", "", "", "", "", "", "", "", ""]
    result = run("init", "answers.yaml", said="\n".join(said))
    assert result.exit_code == 0, result.output
    assert (here / "answers.yaml").read_bytes() == (here / "options.yaml").read_bytes()


def test_a_bad_answer_is_asked_again_with_the_reason(here):
    result = run("init", "a.yaml", "--kind", "hardware", "--yes", "--min-cores", "2")
    assert result.exit_code == 0
    result = run("init", "b.yaml", said="tsak\nhardware\n-1\n2\n\n\n\n\n\n")
    assert result.exit_code == 0, result.output
    assert "wanted one of task, model, dataset, software, hardware, got 'tsak'. Did you mean 'task'?" in result.stderr
    assert "wanted a whole number from 1 to 1,000,000,000, got '-1'" in result.stderr
    assert (here / "a.yaml").read_bytes() == (here / "b.yaml").read_bytes()


def test_no_terminal_and_no_answers_name_the_options_that_are_needed(here):
    result = run("init", "a.yaml", said="task\npython\n")
    assert result.exit_code == 2
    assert "still needed: --target" in result.stderr
    assert "--argument, --input, --dim" in result.stderr
    result = run("init", "a.yaml", "--yes", "--source", "huggingface")
    assert result.exit_code == 2
    assert "still needed: --config" in result.stderr
    assert not (here / "a.yaml").exists()


def test_nonsense_for_ever_ends(here):
    result = run("init", "a.yaml", said="y\n" * 100)
    assert result.exit_code == 2
    assert "--kind: 20 answers made no sense" in result.stderr


def test_an_existing_file_is_left_unless_forced(here):
    (here / "net.yaml").write_text("mine", encoding="utf-8")
    for arguments in (["net.yaml", *ONNX], ONNX):
        result = run("init", *arguments, "--yes")
        assert result.exit_code == 2
        assert "net.yaml exists" in result.stderr
    assert (here / "net.yaml").read_text(encoding="utf-8") == "mine"
    assert run("init", "net.yaml", *ONNX, "--yes", "--force").exit_code == 0
    assert "kind: Task" in (here / "net.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "tasks"], "--kind: wanted one of task"),
        ([*ONNX, "--input", "x=float32"], "--input: wanted NAME=DTYPE"),
        ([*ONNX, "--dim", "Q=3"], "no use for --dim Q="),
        ([*ONNX, "--package", "torch"], "no use for --package"),
        ([*ONNX, "--dim", "B"], "wanted NAME=SIZE"),
        (["absent/a.yaml", *ONNX], "there is no folder absent"),
        (["--kind", "software", "--package", "torch >="], "--package: "),
    ],
)
def test_what_options_may_not_say(here, arguments, message):
    result = run("init", *arguments, "--yes")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(here.glob("*.yaml"))


def test_json_holds_the_manifest_and_the_next_command(here):
    told = json.loads(run("init", *ONNX, "--dim", "B=4", "--yes", "--json").stdout)
    assert told["file"] == "net.yaml"
    assert told["manifest"]["spec"]["dims"] == {"B": 4}
    assert told["next"] == "gnomon resolve net.yaml --explain"
