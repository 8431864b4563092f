import hashlib

import pytest

from gnomon.core.errors import ManifestError, NotRunnable
from gnomon.spec.imports.back import to_mlmodelscope
from gnomon.spec.imports.folder import import_path, write_all
from gnomon.spec.imports.mlmodelscope import meaning
from gnomon.spec.imports.report import Failed, Imported
from gnomon.spec.load import load
from gnomon.spec.resolve import resolve
from tests.spec.imports.examples import CLEAN, MESSY, data_of, manifest
from tests.spec.onnx_files import write_onnx


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    return tmp_path / "in"


@pytest.fixture
def fetched(tmp_path):
    (tmp_path / "fetched" / "deep").mkdir(parents=True)
    return tmp_path / "fetched"


def md5_of(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def only(results):
    (result,) = results
    return result


def test_each_file_of_a_folder_gives_a_result_or_an_error(source):
    for name, text in CLEAN.items():
        (source / f"{name}.yml").write_text(text, encoding="utf-8")
    for name, (text, _) in MESSY.items():
        (source / "sub" / f"{name}.yaml").write_bytes(data_of(text))
    results = import_path(source)
    assert len(results) == len(CLEAN) + len(MESSY)
    bad = {result.source for result in results if isinstance(result, Failed)}
    assert bad == {
        str(source / "sub" / f"{name}.yaml") for name, (_, wanted) in MESSY.items() if wanted.startswith("!")
    }
    assert any("larger than 256 KiB" in result.error for result in results if isinstance(result, Failed))


def test_what_is_written_is_read_back_as_the_same_manifest(source, tmp_path):
    file = source / "sub" / "net.yml"
    file.write_text(manifest(), encoding="utf-8")
    results, written = write_all(import_path(source), source, tmp_path / "out")
    assert isinstance(only(results), Imported)
    assert [path.name for path in written] == ["net.model.yaml", "net.task.yaml", "net.software.yaml"]
    assert {path.parent for path in written} == {tmp_path / "out" / "sub"}
    documents = {path.stem.split(".")[1]: load(path).document for path in written}
    assert to_mlmodelscope(documents) == meaning(file, file.read_bytes())
    with pytest.raises(NotRunnable, match="only described"):
        resolve(written[1])


def test_existing_files_are_left_unless_forced(source, tmp_path):
    (source / "net.yml").write_text(manifest(), encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    (out / "net.task.yaml").write_text("mine", encoding="utf-8")
    results, written = write_all(import_path(source), source, out)
    assert "net.task.yaml exists; pass --force" in only(results).error
    assert written == []
    assert [path.name for path in out.iterdir()] == ["net.task.yaml"]
    results, written = write_all(import_path(source), source, out, force=True)
    assert isinstance(only(results), Imported)
    assert len(written) == 3


def test_two_files_that_would_be_written_as_one_are_not(source, tmp_path):
    for name in ("net.yml", "net.yaml"):
        (source / name).write_text(manifest(), encoding="utf-8")
    results, _ = write_all(import_path(source), source, tmp_path / "out", force=True)
    assert "was just written for another manifest" in results[1].error


def test_an_asset_with_the_stated_md5_is_pinned_and_the_task_can_be_run(source, fetched, tmp_path):
    asset = write_onnx(fetched / "deep" / "net.onnx")
    (source / "net.yml").write_text(manifest(md5=md5_of(asset).upper(), layer="data"), encoding="utf-8")
    results, written = write_all(import_path(source, fetched), source, tmp_path / "out")
    result = only(results)
    assert result.why_not_runnable is None
    spec = result.documents["model"]["spec"]
    assert spec["source"] == "onnx"
    assert spec["weights"]["sha256"] == hashlib.sha256(asset.read_bytes()).hexdigest()
    assert spec["inputs"][0]["shape"] == ["B", 3, 32, 32]
    assert to_mlmodelscope(result.documents) == meaning(source / "net.yml", (source / "net.yml").read_bytes())
    task = resolve(written[1])
    assert task.model.inputs[0].name == "data"
    assert task.dims == {"B": 1}


def test_an_imported_task_runs(source, fetched, tmp_path):
    import torch

    from gnomon.workload.program import build

    write_onnx(fetched / "net.onnx", name="input.1")
    (source / "net.yml").write_text(manifest(), encoding="utf-8")  # names its input by the index 0
    _, written = write_all(import_path(source / "net.yml", fetched), source / "net.yml", tmp_path / "out")
    program = build(resolve(written[1], dims={"B": 2}))
    torch.testing.assert_close(program.step()[0], 2 * program.inputs["input.1"])


def test_the_graph_says_what_it_takes_where_the_manifest_says_otherwise(source, fetched):
    write_onnx(fetched / "net.onnx", shape=(1, 3, 64, 64))
    (source / "net.yml").write_text(manifest(), encoding="utf-8")
    result = only(import_path(source, fetched))
    assert result.documents["model"]["spec"]["inputs"][0]["shape"] == [1, 3, 64, 64]
    assert any("the graph says float32 [1, 3, 64, 64]" in remark.note for remark in result.remarks)


def test_an_asset_with_another_md5_is_refused(source, fetched):
    asset = write_onnx(fetched / "net.onnx")
    (source / "net.yml").write_text(manifest(md5="0" * 32), encoding="utf-8")
    error = only(import_path(source, fetched)).error
    assert f"model.graph_path: wanted the MD5 {'0' * 32}, {asset} has {md5_of(asset)}" in error


def test_the_right_one_of_two_assets_of_one_name_is_taken_by_its_md5(source, fetched):
    write_onnx(fetched / "net.onnx", weights=4)
    right = write_onnx(fetched / "deep" / "net.onnx", weights=5)
    (source / "net.yml").write_text(manifest(md5=md5_of(right)), encoding="utf-8")
    assert list(only(import_path(source, fetched)).files.values()) == [right]
    (source / "net.yml").write_text(manifest(), encoding="utf-8")
    assert "no MD5 is stated and" in only(import_path(source, fetched)).error


def test_an_asset_that_is_no_onnx_file_is_refused(source, fetched):
    (fetched / "net.onnx").write_bytes(b"<html>404</html>")
    (source / "net.yml").write_text(manifest(), encoding="utf-8")
    assert "net.onnx is no ONNX file" in only(import_path(source, fetched)).error


def test_an_asset_that_is_not_there_leaves_the_model_described(source, fetched):
    (source / "net.yml").write_text(manifest(), encoding="utf-8")
    result = only(import_path(source, fetched))
    assert result.documents["model"]["spec"]["source"] == "external"
    assert any("import again with --assets" in remark.note for remark in result.remarks)


def test_nothing_to_import_is_an_error(source, tmp_path):
    with pytest.raises(ManifestError, match=r"no file in this folder ends in .yml"):
        import_path(source)
    with pytest.raises(ManifestError, match="--assets: there is no folder"):
        import_path(source, tmp_path / "absent")
    assert "no such file" in only(import_path(source / "absent.yml")).error
