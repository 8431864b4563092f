import json

import pytest

from gnomon.core.errors import DamagedData, UsageError
from gnomon.spec.lock import check_lock, lock_of, read_lock, write_lock
from gnomon.spec.resolve import resolve, resolve_lock
from tests.spec.write import MODEL, manifest, task, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "model.yaml", manifest("Model", "a-model", "1.0", **MODEL))
    write(tmp_path, "task.yaml", task(model={"ref": "a-model@^1"}, software={"packages": ["torch"]}))
    return tmp_path


def test_a_lock_reads_back_and_matches_the_task(folder):
    resolved = resolve(folder / "task.yaml")
    write_lock(resolved, folder / "task.lock")
    assert read_lock(folder / "task.lock") == lock_of(resolved)
    assert json.loads((folder / "task.lock").read_text())["target"] == "./task.yaml"
    assert check_lock(resolved, read_lock(folder / "task.lock")) == []
    before = (folder / "task.lock").read_bytes()
    write_lock(resolve(folder / "task.yaml"), folder / "task.lock")
    assert (folder / "task.lock").read_bytes() == before


def test_a_lock_notices_what_changed(folder):
    locked = lock_of(resolve(folder / "task.yaml"))
    write(folder, "newer.yaml", manifest("Model", "a-model", "1.1", **{**MODEL, "seed": 5}))
    (difference,) = check_lock(resolve(folder / "task.yaml"), locked)
    assert difference.startswith("model: locked sha256:")
    write(folder, "task.yaml", task(version="2.0", model={"ref": "a-model@1.0"}))
    differences = check_lock(resolve(folder / "task.yaml"), locked)
    assert differences[0] == "task: locked small@1.0.0, now small@2.0"
    assert [d.split(":")[0] for d in differences[1:]] == ["software", "task"]
    assert differences[1].endswith("now nothing")


def test_damaged_and_missing_locks_are_told_apart(folder):
    with pytest.raises(UsageError, match="cannot be read"):
        read_lock(folder / "absent.lock")
    write_lock(resolve(folder / "task.yaml"), folder / "task.lock")
    text = (folder / "task.lock").read_text()
    for damaged, message in (
        (text[:40], "this is no lock"),
        (text.replace("lock/2", "lock/9"), r"wanted a record 'gnomon/lock/2', .*Upgrade Gnomon"),
        ("[]", "no record"),
    ):
        (folder / "task.lock").write_text(damaged)
        with pytest.raises(DamagedData, match=message):
            read_lock(folder / "task.lock")


def test_a_lock_is_plain_json(folder):
    write_lock(resolve(folder / "task.yaml"), folder / "task.lock")
    document = json.loads((folder / "task.lock").read_text())
    assert document["schema"] == "gnomon/lock/2"
    assert set(document["parts"]) == {"task", "model", "software"}


def test_a_lock_is_enough_to_find_the_task_again(folder, tmp_path_factory):
    resolved = resolve(folder / "task.yaml", dims={"V": 20}, dtype="float64", mode="training")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "task.lock"
    write_lock(resolved, elsewhere)
    again = resolve_lock(read_lock(elsewhere))
    assert (again.digest, again.dims["V"], again.dtype, again.mode) == (resolved.digest, 20, "float64", "training")
    assert again.digest == read_lock(elsewhere).digest


def test_a_lock_beside_its_task_can_be_moved_with_it(folder, tmp_path_factory):
    write_lock(resolve(folder / "task.yaml"), folder / "task.lock")
    moved = tmp_path_factory.mktemp("moved")
    for name in ("task.yaml", "task.lock", "model.yaml"):
        (folder / name).rename(moved / name)
    again = resolve_lock(read_lock(moved / "task.lock"))
    assert check_lock(again, read_lock(moved / "task.lock")) == []
    assert again.folder == str(moved)


@pytest.mark.parametrize("target", ["gcn-node-classification", "gcn-node-classification@^1"])
def test_a_lock_of_a_named_task_names_it(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lock(resolve(target, dims={"V": 64}), tmp_path / "task.lock")
    assert read_lock(tmp_path / "task.lock").target == target
    assert resolve_lock(read_lock(tmp_path / "task.lock")).dims["V"] == 64


def test_search_folders_and_combinations_are_kept(folder, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone")
    path = write(alone, "task.yaml", task(model={"ref": "a-model"}, matrix={"dims": {"V": [8, 9]}}))
    write_lock(resolve(f"{path}#2", search=[folder]), alone / "task.lock")
    again = resolve_lock(read_lock(alone / "task.lock"))
    assert (again.dims["V"], again.model.name) == (9, "a-model")


def test_a_lock_of_the_first_version_is_read_and_names_the_task(folder):
    write_lock(resolve("gcn-node-classification"), folder / "task.lock")
    document = json.loads((folder / "task.lock").read_text())
    first = {key: document[key] for key in ("task", "version", "parts")} | {"schema": "gnomon/lock/1"}
    (folder / "task.lock").write_text(json.dumps(first))
    lock = read_lock(folder / "task.lock")
    assert (lock.target, lock.dtype, lock.digest) == ("gcn-node-classification@1.0.0", None, None)
    assert check_lock(resolve_lock(lock), lock) == []
