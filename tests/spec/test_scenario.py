import dataclasses

import pytest

from gnomon.core.records import StructureError, structure, to_json
from gnomon.spec.task import Scenario


def test_each_scenario_has_its_own_percentile_and_query():
    names = ("single-stream", "multi-stream", "offline", "training-steps")
    made = [Scenario("server", target_qps=1.0, latency_bound_s=0.1), *map(Scenario, names)]
    assert [(one.name, one.bound_percentile, one.query_samples) for one in made] == [
        ("server", 0.99, 1), ("single-stream", 0.9, 1), ("multi-stream", 0.99, 8), ("offline", 0.99, 1),
        ("training-steps", 0.99, 1),
    ]  # fmt: skip


def test_a_scenario_round_trips():
    one = Scenario("server", target_qps=50.0, latency_bound_s=0.1, percentile=0.95, seed=7)
    assert structure(Scenario, to_json(one)) == one


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "server"}, "needs target_qps and latency_bound_s"),
        ({"name": "server", "target_qps": 0.0, "latency_bound_s": 0.1}, "target_qps: wanted a positive number, got 0"),
        ({"name": "single-stream", "percentile": 1.0}, "percentile: wanted a share between 0 and 1.*got 1.0"),
        ({"name": "single-stream", "confidence": 0.0}, "confidence: wanted a share"),
        ({"name": "single-stream", "min_queries": 0}, "min_queries: wanted a positive number, got 0"),
        ({"name": "single-stream", "seed": -1}, "seed: wanted a number that is not negative, got -1"),
        ({"name": "single-stream", "latency_bound_s": 0.1}, "latency_bound_s belongs to scenario 'server'"),
        ({"name": "multi-stream", "target_qps": 5.0}, "target_qps belongs to scenarios 'server' and 'offline'"),
        ({"name": "single-stream", "max_queries": 5}, "max_queries is 5, less than min_queries, 100"),
        ({"name": "single-stream", "max_duration_s": 5.0}, "max_duration_s is 5.0, less than min_duration_s, 10.0"),
        ({"name": "offline", "target_loss": 0.1}, "target_loss belongs to scenario 'training-steps'"),
        ({"name": "training-steps", "target_loss": 0.1}, "may never be reached; give max_queries"),
        (
            {"name": "training-steps", "target_loss": 0.1, "target_quality": 0.5, "max_queries": 100},
            "exclude each other",
        ),
    ],
)
def test_what_does_not_fit_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Scenario(**keys)
    with pytest.raises(StructureError, match=message.split(":")[0]):
        structure(Scenario, keys)


def test_replacing_a_value_checks_again():
    with pytest.raises(ValueError, match="percentile"):
        dataclasses.replace(Scenario("offline"), percentile=99.0)
