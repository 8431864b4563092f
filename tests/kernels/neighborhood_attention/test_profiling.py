import json
import time

import pytest
import torch

from gnomon.core.records import from_json, to_json
from gnomon.kernels.neighborhood_attention import Problem, backends, profile
from gnomon.kernels.neighborhood_attention.backends import BACKENDS, measured

PROBLEM = Problem.of((8, 9), 3, 1, (1, 2))


@pytest.fixture(autouse=True)
def _choose_anew():
    backends.forget()
    yield
    backends.forget()


class Spoilt:
    """A backend of a plugin's that returns, after `delay_s` seconds, the reference's result times a factor."""

    def __init__(self, name, factor=1.0, delay_s=0.0, error=None):
        self.name, self.factor, self.delay_s, self.error = name, factor, delay_s, error

    def why_not(self, case):
        return None

    def memory_bytes(self, case):
        return 7

    def seconds(self, case):
        return None

    def run(self, *arguments):
        if self.error:
            raise self.error
        end = time.process_time() + self.delay_s
        while time.process_time() < end:
            pass
        out, lse = BACKENDS["reference"].run(*arguments)
        return out * self.factor, lse


@pytest.mark.parametrize("backward", [False, True])
def test_backends_are_timed_side_by_side_and_their_results_agree(backward):
    told = []
    found = profile(PROBLEM, batch=2, heads=4, heads_kv=2, head_dim=16, backward=backward, repeats=4,
                    backends=["reference", "sdpa", "triton"], progress=told.append)  # fmt: skip
    assert {row.name for row in found.rows} == {"reference", "sdpa"}
    assert found.refused == {"triton": BACKENDS["triton"].why_not(_case(found))}
    assert found.rounds == 4
    assert found.pairs == 2 * 4 * 72 * 9
    assert found.dense_pairs == 2 * 4 * 72 * 72
    for row in found.rows:
        assert 0 < row.wall_min_s <= row.wall_median_s
        assert 0 < row.cpu_min_s <= row.cpu_median_s
        assert row.largest_error < 1e-5
        flop = found.pairs * 4 * 16 * (3.5 if backward else 1)
        assert row.useful_flop_s == pytest.approx(flop / row.wall_min_s)
    assert [row.wall_min_s for row in found.rows] == sorted(row.wall_min_s for row in found.rows)
    assert told[0] == "reference: first call"
    assert told[-1] == "round 4 of 4"
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def _case(found):
    from gnomon.kernels.neighborhood_attention import Case

    return Case(PROBLEM, 2, 4, 2, 16, 16, torch.float32, "cpu", found.backward)


def test_what_was_measured_is_what_auto_then_chooses():
    found = profile(PROBLEM, heads=2, head_dim=16, repeats=3, backends=["reference", "sdpa"])
    case = _case(found).__class__(PROBLEM, 1, 2, 2, 16, 16, torch.float32, "cpu")
    assert backends.chosen(case).name == found.rows[0].name
    assert dict(measured.times(case)) == {row.name: row.wall_min_s for row in found.rows}


def test_a_profile_can_be_taken_without_a_trace():
    found = profile(PROBLEM, heads=2, head_dim=16, repeats=1, backends=["reference"], remember=False)
    assert found.rounds == 1
    case = _case(found).__class__(PROBLEM, 1, 2, 2, 16, 16, torch.float32, "cpu")
    assert not measured.times(case)


def test_a_backend_that_fails_or_is_wrong_is_refused_with_its_reason_and_the_others_go_on():
    table = {
        "reference": BACKENDS["reference"],
        "wrong": Spoilt("wrong", factor=1.01),
        "broken": Spoilt("broken", error=OSError("no such luck\nsecond line")),
        "nan": Spoilt("nan", factor=float("nan")),
    }
    found = profile(PROBLEM, heads=1, head_dim=8, repeats=1, table=table, remember=False)
    assert [row.name for row in found.rows] == ["reference"]
    assert found.refused == {
        "wrong": "its result differs by 0.01 of the largest value from that of reference",
        "broken": "OSError: no such luck",
        "nan": "its result differs by nan of the largest value from that of reference",
    }


def test_a_long_profile_ends_after_three_rounds():
    table = {"slow": Spoilt("slow", delay_s=0.02)}
    found = profile(PROBLEM, heads=1, head_dim=8, repeats=50, table=table, max_seconds=0.01, remember=False)
    assert found.rounds == 3
    assert found.rows[0].cpu_min_s >= 0.02
    assert found.rows[0].memory_bytes == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a positive int; got 0"),
        ({"heads": 4, "heads_kv": 3}, "heads_kv must divide heads; got 3 and 4"),
        ({"head_dim": True}, "head_dim must be a positive int; got True"),
        ({"dtype": torch.int8}, "dtype must be float32, bfloat16"),
        ({"repeats": 0}, "repeats must be at least 1; got 0"),
        ({"backends": ["flux"]}, "backends: 'flux' is not known; known: cpu, triton"),
        ({"backends": ["triton"]}, "backends: none can run this problem. triton: .*GPU"),
        ({"problem": Problem.of((0,), 3)}, "problem has no tokens"),
    ],
)
def test_what_cannot_be_profiled_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        profile(**{"problem": PROBLEM, "heads": 2, "head_dim": 8, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="device is 'cuda', and torch finds no GPU"):
        profile(PROBLEM, heads=1, head_dim=8, device="cuda")
