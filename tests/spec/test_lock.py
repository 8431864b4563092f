import json

import pytest

from gnomon.core.errors import DamagedData, UsageError
from gnomon.spec.lock import check_lock, lock_of, read_lock, write_lock
from gnomon.spec.resolve import resolve
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
        (text.replace("lock/1", "lock/9"), "another version"),
        ("[]", "no record"),
    ):
        (folder / "task.lock").write_text(damaged)
        with pytest.raises(DamagedData, match=message):
            read_lock(folder / "task.lock")


def test_a_lock_is_plain_json(folder):
    write_lock(resolve(folder / "task.yaml"), folder / "task.lock")
    document = json.loads((folder / "task.lock").read_text())
    assert document["schema"] == "gnomon/lock/1"
    assert set(document["parts"]) == {"task", "model", "software"}
