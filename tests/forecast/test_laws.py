"""What must hold of every forecast of the predictor that users get, on the devices of the catalogue."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.devices.device import Quantity
from gnomon.forecast import gpu
from gnomon.forecast.pack.fp32 import products
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import Gnomon
from gnomon.workload.graph import OpGraph

from .build import graph, matmul_graph, stream_graph

DEVICES = ("A100-40GB-PCIE", "H100-SXM", "L4", "T4", "MI210", "B200-SXM", "P100-PCIE")
devices = st.sampled_from(DEVICES).map(catalogue.get)
sizes = st.integers(1, 16384)


def times(device, batch, m, n, k, precision="float32"):
    kind = "bmm" if np.any(batch > 1) else "linear"
    kernels = products(kind, batch, m, n, k, 4.0 if precision == "float32" else 2.0, precision)
    physics = gpu.physics(kernels, device)
    return Gnomon().times(kernels, device, physics), physics


def shapes(count=2000, batch=False):
    rng = np.random.default_rng(0)
    m, n, k = (np.round(2 ** rng.uniform(4, 13, count)) for _ in range(3))
    return np.round(2 ** rng.uniform(2, 9, count)) if batch else np.ones(count), m, n, k


@given(devices, sizes, sizes, sizes)
def test_no_product_is_faster_than_the_roofline(device, m, n, k):
    op = forecast(matmul_graph(m, n, k), device).ops[0]
    flop, moved = 2.0 * m * n * k, 4.0 * (m * k + k * n + m * n)
    roofline = max(flop / device.peak("float32"), moved / device.memory_bandwidth_b_s.value)
    assert roofline <= op.time.low_s <= op.time.value_s <= op.time.high_s


@pytest.mark.parametrize("name", DEVICES)
def test_a_huge_product_reaches_a_share_of_the_peak_and_a_tiny_one_takes_the_launch(name):
    device = catalogue.get(name)
    huge, tiny = (forecast(matmul_graph(s, s, s), device).ops[0].time.value_s for s in (16384, 1))
    assert 0.2 < 2 * 16384**3 / device.peak("float32") / huge <= 1
    assert 0 < tiny < 30e-6


@pytest.mark.parametrize("name", DEVICES)
def test_more_bandwidth_all_but_never_slows(name):
    # physics keeps this law exactly (test_gpu); what is learned about shapes near the ridge may break it by a little
    device = catalogue.get(name)
    faster = replace(device, memory_bandwidth_b_s=Quantity(2 * device.memory_bandwidth_b_s.value, "twice"))
    ratio = times(faster, *shapes())[0].value / times(device, *shapes())[0].value
    assert np.mean(ratio > 1.03) < 0.05
    assert ratio.max() < 1.5


@pytest.mark.parametrize("name", DEVICES)
def test_twice_the_batch_takes_twice_as_long_once_there_are_many_waves(name):
    device = catalogue.get(name)
    batch, m, n, k = shapes(batch=True)
    many = batch * np.ceil(m / 128) * np.ceil(n / 128) > 16 * device.units.value
    ratio = (times(device, 2 * batch, m, n, k)[0].value / times(device, batch, m, n, k)[0].value)[many]
    assert np.median(ratio) == pytest.approx(2, rel=0.03)
    assert np.mean(np.abs(ratio / 2 - 1) < 0.1) > 0.9


@given(devices, st.lists(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), min_size=2, max_size=2, unique=True))
def test_a_larger_batch_takes_longer(device, batches):
    small, large = sorted(batches)
    less, more = (forecast(matmul_graph(512 * b, 1024, 1024, layers=6), device).total.value_s for b in (small, large))
    assert more >= less * (1 - 1e-9)


@given(devices, st.integers(1, 5))
def test_a_graph_split_in_two_takes_as_long_as_whole(device, cut):
    whole = matmul_graph(m=8192, layers=6)
    parts = (OpGraph("part", "inference", ops, whole.tensors, 0) for ops in (whole.ops[:cut], whole.ops[cut:]))
    apart = sum(forecast(part, device).total.value_s for part in parts)
    assert apart == pytest.approx(forecast(whole, device).total.value_s, rel=0.01)


def test_half_precision_is_faster_where_there_are_matrix_units():
    for name in ("A100-40GB-PCIE", "H100-SXM", "L4", "T4"):
        single, half = (
            forecast(matmul_graph(8192, 8192, 8192, dtype=d), catalogue.get(name)) for d in ("float32", "float16")
        )
        assert half.total.value_s < 0.4 * single.total.value_s


def test_a_precision_the_device_lacks_is_refused():
    with pytest.raises(UsageError, match=r"NVIDIA Tesla V100.* has no float8 peak"):
        forecast(matmul_graph(), catalogue.get("V100-PCIE"), dtype="float8")


def test_a_device_apart_from_all_that_were_measured_is_warned_about_and_gets_a_wider_interval():
    near, far = (
        catalogue.get("A100-40GB-SXM"),
        replace(catalogue.get("A100-40GB-SXM"), vendor="Unheard", process_m=Quantity(1e-9, "x")),
    )
    known, strange = (forecast(matmul_graph(8192, 8192, 8192), d) for d in (near, far))
    assert not [w for w in known.warnings if "measured GPU" in w]
    assert any("far from every measured GPU" in w for w in strange.warnings)
    assert strange.total.high_s / strange.total.low_s > known.total.high_s / known.total.low_s


def test_streams_run_near_the_bandwidth_and_unknown_operators_are_never_free():
    device = catalogue.get("A100-40GB-PCIE")
    moved = 12.0 * (1 << 28)
    share = moved / device.memory_bandwidth_b_s.value / forecast(stream_graph(elements=1 << 28), device).total.value_s
    assert 0.7 < share <= 1
    unknown = forecast(stream_graph(elements=1 << 28, flop=None, category="unknown", name="aten.odd.default"), device)
    assert unknown.total.value_s > moved / device.memory_bandwidth_b_s.value


def test_an_empty_graph_is_forecast_everywhere():
    for name in DEVICES:
        assert forecast(graph(), catalogue.get(name)).total.value_s == 0
