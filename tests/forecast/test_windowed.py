"""Attention in windows as the dense kernel's forecast with fewer tiles: limits, and the published measurements."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.forecast.predict import forecast
from gnomon.forecast.price import Efficiency, Price
from gnomon.forecast.record import Estimate
from gnomon.forecast.windowed import Heads, dense_graph, efficiency, expected_speedup, price
from gnomon.forecast.work import AttentionShape, works
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.published import CASES
from gnomon.kernels.neighborhood_attention.tiles import count

H100 = catalogue.get("H100-SXM")
PUBLISHED = {case: price(case.counted, Heads(case.heads, case.head_dim, dtype="float16"), H100) for case in CASES}


def test_the_forecasts_of_the_published_problems_hold_the_measured_times():
    for case, found in PUBLISHED.items():
        assert found.time.low_s <= case.seconds <= found.time.high_s
        assert found.time.value_s == pytest.approx(case.seconds, rel=0.8)


def test_the_forecast_puts_published_problems_in_their_measured_order():
    ranked = sorted(CASES, key=lambda case: PUBLISHED[case].time.value_s)
    assert [c.problem.space for c in ranked] == [c.problem.space for c in sorted(CASES, key=lambda c: c.seconds)]


def test_six_published_cases_lead_to_expect_most_of_the_seventh():
    """An honest limit: the largest strides of 2-D and 3-D beat what others show, as the dense kernel is another."""
    inside = 0
    for i, case in enumerate(CASES):
        expected = expected_speedup(case.counted, efficiency([*CASES[:i], *CASES[i + 1 :]]))
        inside += expected.low <= case.speedup <= expected.high
    assert inside >= 5


def test_the_dense_operator_is_the_forecasters_own():
    what = Heads(8, 64, batch=2, kv_heads=2, backward=True)
    forward, backward = works(dense_graph(1024, what))
    assert forward.attention == backward.attention == AttentionShape(2, 8, 2, 1024, 1024, 64)
    assert (forward.precision, forward.category) == ("bfloat16", "attention")
    assert forward.moved_bytes == 2 * 2 * 1024 * 64 * (8 + 2 + 2 + 8)
    assert 2 < backward.flop / forward.flop < 3  # five products for two
    step = forecast(dense_graph(1024, what), H100)
    counted = count(Problem.of((1024,), 1024), (128,))
    assert price(counted, what, H100).dense.value_s == pytest.approx(sum(op.time.value_s for op in step.ops))


@given(log_tokens=st.integers(8, 14), device=st.sampled_from(["H100-SXM", "T4", "MI300X", "A100-80GB-SXM"]))
def test_a_window_of_everything_gains_nothing(log_tokens, device):
    tokens = 2**log_tokens
    found = price(count(Problem.of((tokens,), tokens), (128,)), Heads(8, 64, dtype="float16"), catalogue.get(device))
    assert found.speedup.value <= 1
    assert found.speedup.low <= found.speedup.value <= found.speedup.high
    assert found.time.low_s <= found.time.value_s <= found.time.high_s


@given(data=st.data())
def test_larger_windows_never_take_less_and_nothing_beats_the_pairs_it_is_asked_for(data):
    heads = Heads(16, 128, dtype="float16", backward=data.draw(st.booleans()))
    windows = sorted(data.draw(st.lists(st.integers(2, 4096), min_size=2, max_size=4)))
    found = [price(count(Problem.of((4096,), w), (128,)), heads, H100) for w in windows]
    times = [one.time.value_s for one in found]
    assert times == sorted(times)
    for window, one in zip(windows, found, strict=True):
        flop = 4 * 4096 * window * 128 * 16
        assert one.time.low_s >= flop / H100.peak("float16")
        assert one.time.low_s >= 4 * 4096 * 128 * 16 * 2 / H100.memory_bandwidth_b_s.value


def test_the_rate_is_the_geometric_mean_and_range_of_the_cases():
    ratios = [case.speedup / case.counted.tile_bound for case in CASES]
    assert efficiency() == pytest.approx((math.prod(ratios) ** (1 / 7), min(ratios), max(ratios)))
    blocked = count(Problem.of((64,), 16, 16), (16,))
    found = expected_speedup(blocked, Efficiency(0.5, 0.25, 1.0))
    assert (found.value, found.low, found.high) == pytest.approx((2, 1, 4))


def test_the_share_counts_padding_that_the_tile_bound_forgives():
    """33 tokens in tiles of 32: a dense kernel with these tiles would pad as well, one that pads nothing would not."""
    found = count(Problem.of((33,), 33), (32,))
    assert found.tile_bound == 1
    assert expected_speedup(found, Efficiency(1, 1, 1)).value == pytest.approx(33**2 / 64**2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 0, "head_dim": 8}, "heads must be at least 1; got 0"),
        ({"heads": 8, "head_dim": 8, "kv_heads": 3}, "kv_heads must divide heads; got 3 and 8"),
    ],
)
def test_heads_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Heads(**arguments)


def test_a_device_without_the_dtype_says_so():
    with pytest.raises(UsageError, match="has no bfloat16 peak"):
        price(count(Problem.of((64,), 8), (16,)), Heads(1, 8), catalogue.get("T4"))


def test_time_and_speed_up_are_the_same_statement():
    for found in PUBLISHED.values():
        assert found.dense.value_s / found.time.value_s == pytest.approx(found.speedup.value)
        wider = (found.time.high_s / found.time.low_s) > (found.speedup.high / found.speedup.low)
        assert wider  # of a ratio, what is wrong with the device cancels


class Optimist:
    """Every operator takes a nanosecond."""

    name = "optimist"

    def prices(self, works, device):
        return [Price(Estimate(1e-9, 1e-9, 1e-9), "compute") for _ in works]

    def common_spread(self, device):
        return 0.0

    def remarks(self, device):
        return []


@pytest.mark.parametrize("window", [2, 2**16])
def test_no_forecast_lies_below_the_roofline_of_what_is_asked_for(window):
    tokens, heads = 2**20, Heads(16, 128, dtype="float16")
    found = price(count(Problem.of((tokens,), window), (128,)), heads, H100, Optimist())
    memory_s = 4 * tokens * 16 * 128 * 2 / H100.memory_bandwidth_b_s.value
    compute_s = 4 * tokens * window * 128 * 16 / H100.peak("float16")
    assert found.time.low_s == pytest.approx(max(memory_s, compute_s), rel=0.02)  # and a softmax
    assert found.speedup.high == pytest.approx(1e-9 / found.time.low_s)
