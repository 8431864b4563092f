import json

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from gnomon.core.records import from_json
from gnomon.store.store import open_store
from tests.spec.write import task, write

SMALL = ["gcn-node-classification", "--dim", "V=64", "--dim", "E=128", "--dim", "F=8"]


def run(*arguments):
    return CliRunner().invoke(main, ["loadtest", *map(str, arguments)])


def test_a_stream_is_valid_and_stored():
    result = run(*SMALL, "--min-queries", 70, "--min-duration", "10ms", "--percentile", 90, "--json")
    assert result.exit_code == 0, result.output
    printed = from_json(json.loads(result.stdout))
    assert (printed.verdict, printed.scenario.name, printed.scenario.percentile) == ("VALID", "single-stream", 0.9)
    store = open_store(None)
    row = store.runs()[0]
    assert (row.command, row.status) == ("loadtest", "done")
    assert store.load_all(row.id, "scenario-result") == [printed]


def test_a_search_stores_every_run_and_an_invalid_one_exits_with_1():
    asked = ["--scenario", "server", "--qps", 400, "--latency-bound", "1ns", "--min-queries", 50, "--percentile", 50]
    result = run(*SMALL, *asked, "--min-duration", "10ms", "--find-max-qps", "--runs", 2)
    assert result.exit_code == 1, result.output
    assert "lowest-failed: the bound of 1e-06 ms at the 50th percentile is missed even at 200 queries/s" in " ".join(
        result.stdout.split()
    )
    store = open_store(None)
    (row,) = store.runs()
    assert len(store.load_all(row.id, "scenario-result")) == 2
    (search,) = store.load_all(row.id, "qps-search")
    assert [trial.qps for trial in search.trials] == [400, 200]


def test_training_that_misses_its_target_exits_with_1_and_says_so():
    asked = ["--scenario", "training-steps", "--target-loss", -1e9, "--max-queries", 20]
    result = run(*SMALL, *asked)
    assert result.exit_code == 1, result.output
    assert "mean loss of 10 steps <= -1e+09 was not reached in 20 steps" in " ".join(result.stdout.split())
    assert "peak memory" in result.stdout


def test_the_scenario_of_a_manifest_is_taken_and_can_be_changed(tmp_path):
    path = write(tmp_path, "task.yaml", task(scenario={"name": "multi-stream", "samples_per_query": 3}))
    result = run(path, "--min-queries", 0)
    assert result.exit_code == 2
    assert "min_queries: wanted a positive number, got 0" in " ".join(result.output.split())
    result = run(path, "--scenario", "server")  # another scenario knows nothing of samples_per_query
    assert "needs target_qps and latency_bound_s" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--scenario", "server", "--qps", "0", "--latency-bound", "1ms"],
            "target_qps: wanted a positive number, got 0",
        ),
        (["--percentile", "100"], "wanted a percentile between 0 and 100, both excluded; got 100"),
        (["--scenario", "server", "--qps", "5", "--latency-bound", "soon"], "wanted a time such as '2m'"),
        (["--scenario", "server"], "needs target_qps and latency_bound_s"),
        (["--scenario", "poisson"], "'poisson' is not one of 'single-stream'"),
        (["--scenario", "multi-stream"], "no dimension B, so a query holds one sample; got 8"),
        (["--find-max-qps"], "only scenario 'server' has a rate of queries to search"),
        (["--mode", "training", "--scenario", "offline"], "runs tasks in inference mode"),
        (["--scenario", "training-steps", "--target-quality", "1", "--max-queries", "200"], "has no quality.evaluate"),
    ],
)
def test_a_wrong_request_is_refused_at_once(arguments, message):
    result = run(*SMALL, *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.replace("│", " ").split())
