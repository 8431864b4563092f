import hashlib
import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from tests.spec.imports.examples import CODE, manifest
from tests.spec.onnx_files import write_onnx


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "net.yml").write_text(manifest(extra=CODE), encoding="utf-8")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, ["import", "mlmodelscope", *map(str, arguments)])


def test_a_report_names_each_key_that_was_not_taken_over_with_its_line(here):
    result = run("in/net.yml")
    assert result.exit_code == 0
    assert "in/net.yml:53: preprocess: refused -> mlmodelscope-code/preprocess: inline code of 6 lines" in result.stdout
    assert "in/net.yml:1: name" not in result.stdout
    assert "2 refused" in result.stdout
    assert "cannot be run: the model is only described" in result.stdout
    assert "in/net.yml:1: name: mapped -> metadata.name: as net_v1.0" in run("in/net.yml", "--all").stdout
    assert sorted(path.name for path in here.iterdir()) == ["in"]


def test_what_is_written_validates(here):
    assert run("in/net.yml", "--out", "out").exit_code == 0
    files = sorted(str(path) for path in (here / "out").iterdir())
    assert len(files) == 3
    assert CliRunner().invoke(main, ["validate", *files]).exit_code == 0


def test_an_import_with_its_file_at_hand_resolves(here):
    (here / "fetched").mkdir()
    md5 = hashlib.md5(write_onnx(here / "fetched" / "net.onnx").read_bytes(), usedforsecurity=False).hexdigest()
    (here / "in" / "net.yml").write_text(manifest(md5=md5), encoding="utf-8")
    result = run("in/net.yml", "--out", "out", "--assets", "fetched")
    assert result.exit_code == 0
    assert "it can be run" in result.stdout
    assert CliRunner().invoke(main, ["resolve", "out/net.task.yaml"]).exit_code == 0


def test_some_failures_of_a_folder_end_with_exit_code_1_and_a_summary(here):
    (here / "in" / "bad.yml").write_text("name: [\n", encoding="utf-8")
    result = run("in", "--out", "out")
    assert result.exit_code == 1
    assert "in/bad.yml:2: this is not YAML" in result.stderr
    assert "1 of 2 manifests could not be imported" in result.stderr
    assert "failed" in result.stdout
    assert (here / "out" / "net.task.yaml").exists()


def test_a_file_that_is_refused_ends_with_exit_code_2(here):
    (here / "in" / "bad.yml").write_text("model: {}\nlicense: a\nlicense: b\n", encoding="utf-8")
    result = run("in/bad.yml")
    assert result.exit_code == 2
    assert "in/bad.yml:3: license: the key is given twice, first on line 2" in result.stderr
    assert run("absent.yml").exit_code == 2


def test_json_is_one_document_with_documents_and_remarks(here):
    told = json.loads(run("in", "--json", "--out", "out").stdout)
    (result,) = told["results"]
    assert result["documents"]["task"]["kind"] == "Task"
    assert {"key": "hidden", "line": 52, "outcome": "kept", "to": "metadata.labels", "note": "provenance"} in result[
        "remarks"
    ]
    assert len(told["written"]) == 3
