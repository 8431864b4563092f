import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.forecast.predict import forecast
from gnomon.forecast.record import Estimate
from gnomon.forecast.rental import Prices
from gnomon.forecast.setting import Setting
from gnomon.forecast.sweep import Point, Range, Sweep, answer, best_by_device, sizes_in, sweep

from .build import device, matmul_graph

FAST = device(name="fast", memory_bandwidth_b_s=2e12)
SLOW, SMALL = device(name="slow"), device(name="small", memory_bytes=2e8)


def capture(sizes):
    return matmul_graph(m=256 * sizes.batch, n=4096, k=4096, dtype=sizes.dtype or "float32")


def test_a_point_is_the_forecast_of_its_batch_on_its_device():
    swept = sweep(capture, [FAST, SLOW], batches=[1, 2, 4, 8, 16])
    assert len(swept.points) == 10
    assert swept.captured == 3
    for point in swept.points:
        graph = matmul_graph(m=256 * point.batch, n=4096, k=4096)
        alone = forecast(graph, {"fast": FAST, "slow": SLOW}[point.device])
        assert point.time == alone.total
        assert point.throughput.value == pytest.approx(point.batch / alone.total.value_s)
        assert point.throughput.low < point.throughput.value < point.throughput.high


def test_tokens_are_counted_where_a_sample_has_some():
    samples, tokens = (sweep(capture, [SLOW], batches=[4], length=length) for length in (None, 128))
    assert (samples.unit, tokens.unit) == ("samples", "tokens")
    assert tokens.points[0].throughput.value == pytest.approx(128 * samples.points[0].throughput.value)


def test_a_price_an_hour_becomes_one_of_a_million():
    swept = sweep(capture, [SLOW, FAST], batches=[4], prices=Prices("EUR", {"slow": 3.6}))
    slow, fast = swept.points
    assert slow.cost.value == pytest.approx(1e6 * 0.001 / slow.throughput.value)
    assert slow.cost.low < slow.cost.value < slow.cost.high
    assert fast.cost is None


def test_a_dtype_that_a_device_lacks_and_too_little_memory_are_points_that_say_so():
    swept = sweep(capture, [SMALL], batches=[1, 64], dtypes=["float8", "float32"])
    why = {(p.dtype, p.batch): p.why_not for p in swept.points}
    assert "small has no float8 peak" in why["float8", 1]
    assert why["float32", 1] == ""
    assert why["float32", 64].startswith("needs ")
    assert [p.fits for p in swept.points if p.dtype == "float32"] == [True, False]
    assert next(p for p in swept.points if (p.dtype, p.batch) == ("float32", 64)).time is not None


def point(name, low, value, high, fits=True):
    rate = Range(1 / value, 1 / high, 1 / low)
    return Point(name, "float32", 1, None, Estimate(value, low, high), rate, None, 1.0, 2.0, fits, "memory")


def test_devices_whose_intervals_overlap_the_best_one_cannot_be_told_apart():
    points = [point("a", 1, 2, 3), point("b", 2.9, 4, 5), point("c", 3.1, 4, 5), point("d", 0.1, 0.2, 0.3, fits=False)]
    for objective in ("latency", "throughput"):
        found = answer(points, objective)
        assert (found.best.device, [p.device for p in found.rivals]) == ("a", ["b"])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.1, 10), st.floats(1.01, 3)), min_size=1))
def test_the_best_is_nobodys_loser_and_appears_once_per_device(rows):
    points = [point(name, value / factor, value, value * factor) for name, value, factor in rows]
    for objective in ("latency", "throughput"):
        ranked = best_by_device(points, objective)
        assert ranked[0].time.value_s == min(p.time.value_s for p in points)
        assert sorted(p.device for p in ranked) == sorted({p.device for p in points})
        assert [p.time.value_s for p in ranked] == sorted(p.time.value_s for p in ranked)


def test_no_device_and_no_price_are_told():
    with pytest.raises(UsageError, match="no device can run the task: d: "):
        answer([point("d", 1, 2, 3, fits=False)], "latency")
    with pytest.raises(UsageError, match="no device that can run the task has a price"):
        answer([point("d", 1, 2, 3)], "cost")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "wanted at least one batch and one device, got 0 and 1"),
        ({"batches": [0, 1]}, "wanted batches and lengths of at least 1, got 0"),
        ({"batches": [1], "setting": Setting(tensor=2)}, "a sweep is over single devices"),
    ],
)
def test_a_sweep_of_nothing_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        sweep(capture, [SLOW], **arguments)


def test_sizes_are_listed_or_doubled():
    assert sizes_in("1,2,4") == (1, 2, 4)
    assert sizes_in("1..20, 3") == (1, 2, 3, 4, 8, 16)


@pytest.mark.parametrize("text", ["", "0", "4..2", "1..x", "a", "1,,2", "-1"])
def test_what_are_no_sizes_is_refused(text):
    with pytest.raises(UsageError, match="wanted sizes"):
        sizes_in(text)


def test_a_sweep_survives_the_store():
    swept = sweep(
        capture, [SLOW, SMALL], batches=[1, 64], dtypes=["float8", "float32"], prices=Prices("EUR", {"slow": 1})
    )
    assert from_json(to_json(swept), Sweep) == swept
