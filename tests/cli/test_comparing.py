"""The verbs compare, gate and aa on measurements that were made up, and what they refuse. Real ones: test_pipeline."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.measure.record import LevelRun, Measurement
from gnomon.store.store import open_store
from tests.report import example


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results.db"


def store_measurement(place, pace, seed=0, **changes):
    """A run that holds the example's measurement at this pace; returns its id. changes: of its environment."""
    rng, m = np.random.default_rng(seed), example.make_examination().measurement
    one, made = m.levels[0].sessions[0], []
    for _ in range(6):
        times = tuple(pace * np.exp(rng.normal(0, 0.004)) * np.exp(rng.normal(0, 0.002, 30)))
        made.append(dataclasses.replace(one, cpu_s=times, wall_s=times))
    environment = dataclasses.replace(m.environment, **changes)
    m = dataclasses.replace(m, levels=(LevelRun("model", tuple(made), None),), environment=environment)
    with open_store(str(place)).begin("run", {}, task=m.task, task_digest=m.task_digest) as run:
        run.add(m)
    return run.id


def gnomon(place, *arguments, exit_code=0):
    done = CliRunner().invoke(main, [*map(str, arguments), "--store", str(place)], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done


def test_two_stored_runs_get_a_verdict_and_what_could_not_be_seen(place):
    first, same, slow = (store_measurement(place, pace, seed) for seed, pace in enumerate((1.0, 1.0, 1.1)))
    assert "no difference within 2 %" in gnomon(place, "compare", first, same).stdout
    shown = gnomon(place, "compare", first, slow).stdout
    assert "slower" in shown
    assert "cannot be seen (80 % power)" in " ".join(shown.split())
    found = json.loads(gnomon(place, "compare", first, same, "--margin", "0.1%", "--json").stdout)
    assert found["ratio"]["margin"] == pytest.approx(0.001)
    assert found["ratio"]["verdict"] == "undecided"


def test_a_gate_exits_with_1_for_a_regression_and_with_0_otherwise(place, tmp_path):
    first, same, slow = (store_measurement(place, pace, seed) for seed, pace in enumerate((1.0, 1.0, 1.1)))
    baseline = tmp_path / "baseline.json"
    gnomon(place, "gate", "--save", baseline, first)
    kept = json.loads(baseline.read_text())
    assert (len(kept["levels"]), kept["layers"], kept["spans"]) == (1, [], [])
    for reference in (baseline, first):
        assert "passed" in gnomon(place, "gate", "--baseline", reference, same).stdout
        assert "FAILED" in gnomon(place, "gate", "--baseline", reference, slow, exit_code=1).stdout
    found = json.loads(gnomon(place, "gate", "--baseline", baseline, slow, "--json", exit_code=1).stdout)
    assert (found["verdict"], found["passed"]) == ("regressed", False)
    gnomon(place, "gate", "--baseline", baseline, slow, "--max-regression", "20%")
    runs = json.loads(gnomon(place, "db", "list", "--json").stdout)["runs"]
    assert {r["status"] for r in runs} == {"done"}


def test_a_gate_does_not_judge_a_baseline_of_another_machine(place):
    machine = {**example.make_examination().measurement.environment.machine, "cpu": "Another CPU"}
    first, other = store_measurement(place, 1.0), store_measurement(place, 1.0, machine=machine)
    done = gnomon(place, "gate", "--baseline", first, other, exit_code=3)
    assert "measured on another machine" in done.stderr
    assert "the machines differ" in " ".join(
        gnomon(place, "gate", "--baseline", first, other, "--any-machine").stdout.split()
    )


def test_a_damaged_baseline_is_damaged_data(place, tmp_path):
    first = store_measurement(place, 1.0)
    broken, other, empty = tmp_path / "broken.json", tmp_path / "other.json", tmp_path / "empty.json"
    broken.write_text('{"schema": ')
    other.write_text('{"schema": "gnomon/forecast/1"}')
    gnomon(place, "gate", "--save", empty, first)
    document = json.loads(empty.read_text())
    document["levels"] = []
    empty.write_text(json.dumps(document))
    for path, message in ((broken, "JSON cannot be read"), (other, "wanted a record"), (empty, "holds no session")):
        done = gnomon(place, "gate", "--baseline", path, first, exit_code=4)
        assert message in done.stderr
        assert path.name in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nothing-of-this-name", "x"], "'nothing-of-this-name' is neither a stored run nor a task"),
        (["compare", "gcn-node-classification"], "wanted two tasks or two stored runs"),
        (["compare", "gcn-node-classification", "a", "--recipe", "bf16"], "wanted two tasks or two stored runs"),
        (["compare", "a", "b", "--margin", "2"], "wanted per cent, more than 0% and less than 100%, such as 5%"),
        (["compare", "a", "b", "--margin", "200%"], "wanted per cent"),
        (["compare", "a", "b", "--sessions", "many"], "wanted a number of fresh processes, or auto; got 'many'"),
        (["gate", "a"], "wanted either --baseline to judge by, or --save"),
        (["gate", "a", "--baseline", "nothing-of-this-name"], "no run is called 'nothing-of-this-name'"),
        (["gate", "a", "--baseline", "b", "--save", "c"], "wanted either --baseline to judge by, or --save"),
        (["aa", "gcn-node-classification", "--sessions", "1"], "1 is not in the range"),
    ],
)
def test_a_wrong_request_is_refused_in_words(place, arguments, message):
    done = gnomon(place, *arguments, exit_code=2)
    assert message in " ".join(done.stderr.split())


def test_a_run_and_a_task_are_not_compared(place):
    run = store_measurement(place, 1.0)
    done = gnomon(place, "compare", run, "gcn-node-classification", exit_code=2)
    assert "one is a run and one a task" in done.stderr
    assert "gnomon gate" in done.stderr


def test_a_baseline_is_a_measurement_that_can_be_read_back(place, tmp_path):
    gnomon(place, "gate", "--save", tmp_path / "b.json", store_measurement(place, 1.0))
    found = from_json(json.loads((tmp_path / "b.json").read_text()), Measurement)
    assert len(found.levels[0].sessions) == 6
