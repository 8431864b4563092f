"""gnomon verify, from the task to the stored verdict."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.errors import DamagedData, ManifestError
from gnomon.pipeline import verify_log
from gnomon.pipeline.verifying import log_lock, read_log
from gnomon.spec.load import load
from gnomon.spec.resolve import resolve_lock
from gnomon.spec.write import yaml_text
from gnomon.store.store import open_store
from tests.spec.write import task, write

LINEAR = {
    "source": "python",
    "target": "torch.nn:Linear",
    "arguments": {"in_features": 8, "out_features": 3},
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["B", 8]}],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": ["B", 3]}],
}
PROTOCOL = {"sessions": 2, "calls": 3, "warmup_s": 0, "timeout_s": 100}


def small(folder, name="task.yaml", **spec):
    return write(folder, name, task(**{"dims": {"B": 4}, "model": LINEAR, "protocol": PROTOCOL, **spec}))


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def changed(path, change):
    """The log with a change of its document."""
    document = load(path).document
    change(document)
    path.write_text(yaml_text(document))
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with a task and its log, recorded once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("recorded")
        patch.setenv("GNOMON_HOME", str(folder / "home"))
        result = run(small(folder), "--record", folder / "log.yaml", "--author", "the author")
        assert result.exit_code == 0, result.output
        assert "latency_p50_s" in result.output
    return folder


@pytest.fixture
def folder(recorded, tmp_path):
    """A copy that may be changed, its log from another machine, so that nothing is timed."""
    for path in recorded.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    changed(tmp_path / "log.yaml", lambda log: log["spec"]["machine"].update(cpu="another"))
    return tmp_path


def verdict(folder):
    path = folder / "log.yaml"
    with open_store().begin("verify", {}) as store_run:
        result = verify_log(resolve_lock(log_lock(path)), path, store_run)
    return result, {part.name: part for part in result.parts}


def test_a_log_says_what_its_author_got(recorded):
    log = read_log(recorded / "log.yaml")
    assert (log.metadata.name, log.spec.author, log.spec.lock.target) == ("small", "the author", "./task.yaml")
    (one,) = log.spec.outputs
    assert (one.name, one.shape, one.file) == ("scores", (4, 3), "log.output-0.npy")
    assert np.load(recorded / one.file).shape == (4, 3)
    metric = log.spec.metrics["latency_p50_s"]
    assert (metric.n, len(metric.samples), metric.unit) == (2, 2, "s")
    assert metric.ci95[0] <= metric.value <= metric.ci95[1]
    assert log.spec.software["python"]


def test_a_recorded_task_is_verified_and_the_verdict_is_stored(recorded):
    result = run(recorded / "task.yaml", "--against", recorded / "log.yaml", "--json")
    document = json.loads(result.stdout)
    parts = {part["name"]: part["verdict"] for part in document["parts"]}
    assert parts["scores"] == "same"
    assert parts["cpu"] == "same"
    assert parts["latency_p50_s"] in ("no worse", "worse")  # others use this machine
    assert document["verdict"] == ("reproduced" if parts["latency_p50_s"] == "no worse" else "not reproduced")
    assert result.exit_code == (0 if document["verdict"] == "reproduced" else 1)
    (stored,) = open_store().results(kind="reproduction")
    assert stored.verdict == document["verdict"]


def test_another_machine_is_no_verdict_on_times_and_none_is_taken(folder):
    result, parts = verdict(folder)
    assert result.verdict == "reproduced"
    assert parts["latency_p50_s"].verdict == "other hardware"
    assert open_store().results(kind="measurement") == []


def test_another_task_is_not_run_and_every_part_that_differs_is_named(folder):
    small(folder, seed=1, software={"packages": ["torch"]})
    result, parts = verdict(folder)
    assert result.verdict == "not reproduced"
    assert set(parts) == {"task", "software"}
    assert parts["software"].detail.startswith("locked nothing, now sha256:")


def test_other_values_are_found_out(folder):
    import hashlib

    values = np.load(folder / "log.output-0.npy")
    values[1, 2] += 0.01
    np.save(folder / "log.output-0.npy", values)
    sha = hashlib.sha256((folder / "log.output-0.npy").read_bytes()).hexdigest()

    def other(log):
        log["spec"]["outputs"][0].update(sha256=sha, digest="sha256:" + "0" * 64)

    changed(folder / "log.yaml", other)
    result, parts = verdict(folder)
    assert result.verdict == "not reproduced"
    assert parts["scores"].detail.startswith("1 of 12 values beyond the tolerance: largest difference 0.01;")


def test_sizes_that_are_not_the_locked_ones_are_another_setting(folder):
    changed(folder / "log.yaml", lambda log: log["spec"]["lock"]["dims"].update(B=5))
    result, parts = verdict(folder)
    assert result.verdict == "not reproduced"
    assert set(parts) == {"setting"}


def test_a_lock_is_run_twice_or_against_the_outputs_that_it_states(recorded, tmp_path):
    lock = tmp_path / "task.lock"
    assert CliRunner().invoke(main, ["resolve", str(recorded / "task.yaml"), "--lock", str(lock)]).exit_code == 0
    result = run(lock)
    assert (result.exit_code, "two runs here agree bit for bit" in result.output) == (0, True), result.output
    document = json.loads(lock.read_text())
    for outputs, code in ((read_log(recorded / "log.yaml").spec.lock.outputs, 0), ("sha256:" + "0" * 64, 1)):
        lock.write_text(json.dumps({**document, "outputs": outputs}))
        result = run(lock, "--json")
        assert result.exit_code == code
        assert json.loads(result.stdout)["parts"][-1]["verdict"] == ("same" if code == 0 else "different")
    assert "CheckFailed: small was not reproduced: outputs" in result.stderr


def test_a_lock_notices_a_changed_byte_before_anything_runs(tmp_path):
    import hashlib

    (tmp_path / "data.bin").write_bytes(b"data")
    data = {
        "examples": "gnomon.zoo.graph.gcn:examples",
        "files": {"raw": {"file": "data.bin", "sha256": hashlib.sha256(b"data").hexdigest()}},
    }
    path = write(tmp_path, "task.yaml", task(dataset=data))
    lock = tmp_path / "task.lock"
    assert CliRunner().invoke(main, ["resolve", str(path), "--lock", str(lock)]).exit_code == 0
    (tmp_path / "data.bin").write_bytes(b"dbta")
    result = run(lock)
    assert result.exit_code == 4
    assert "spec.dataset.files.raw: wanted SHA-256" in result.stderr


def test_usage_faults_say_what_to_do(recorded, tmp_path):
    result = run(recorded / "task.yaml")
    assert (result.exit_code, "--against LOG, write a log with --record LOG" in result.stderr) == (2, True)
    result = run(recorded / "task.yaml", "--record", tmp_path / "a", "--against", tmp_path / "b")
    assert result.exit_code == 2
    result = run(recorded / "task.yaml", "--against", recorded / "task.yaml")
    assert (result.exit_code, "kind: wanted a ReferenceLog, got a Task" in result.stderr) == (2, True)


def test_a_log_of_another_version_or_with_a_changed_file_is_refused(folder):
    values = folder / "log.output-0.npy"
    values.write_bytes(values.read_bytes()[:-1] + bytes([values.read_bytes()[-1] ^ 1]))
    changed(folder / "log.yaml", lambda log: log["spec"]["outputs"][0].update(digest="sha256:" + "0" * 64))
    with pytest.raises(DamagedData, match=r"log.output-0.npy: wanted SHA-256"):
        verdict(folder)
    changed(folder / "log.yaml", lambda log: log.update(apiVersion="gnomon/v2"))
    with pytest.raises(ManifestError, match="Upgrade Gnomon"):
        read_log(folder / "log.yaml")
