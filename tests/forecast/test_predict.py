import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.forecast.predict import DISPATCH_S, forecast
from gnomon.forecast.record import Forecast
from gnomon.workload.graph import Op, OpGraph

from .build import device, graph, matmul_graph, stream_graph


@given(st.integers(2, 12))
def test_n_layers_take_n_times_one_layer(n):
    one, many = (forecast(matmul_graph(layers=layers), device()).total.value_s for layers in (1, n))
    assert many == pytest.approx(n * one, rel=0.02)


@given(st.permutations(range(6)))
def test_the_order_of_operators_does_not_matter_when_the_device_is_busy(order):
    parts = [matmul_graph(m=2048 + 512 * i) for i in range(6)]
    tensors = [t for part in parts for t in part.tensors]
    ops = [
        dataclasses.replace(part.ops[0], inputs=(3 * i, 3 * i + 1), outputs=(3 * i + 2,))
        for i, part in enumerate(parts)
    ]
    straight = forecast(graph(*ops, tensors=tensors), device())
    shuffled = forecast(graph(*[ops[i] for i in order], tensors=tensors), device())
    assert shuffled.total.value_s == pytest.approx(straight.total.value_s, rel=1e-9)


def test_equal_numbers_under_another_name_give_an_equal_forecast():
    a, b = (forecast(matmul_graph(), device(name=name)) for name in ("x", "y"))
    assert dataclasses.replace(a, device="y") == b


def test_many_small_operators_are_bound_by_the_host():
    result = forecast(stream_graph(elements=16, count=1000), device())
    assert result.bound == "launch"
    assert result.total.value_s == pytest.approx(1000 * DISPATCH_S.value, rel=0.05)


def test_large_operators_hide_the_host():
    result = forecast(stream_graph(elements=1 << 28, count=10), device())
    device_s = sum(op.time.value_s for op in result.ops)
    assert result.bound == "memory"
    assert result.total.value_s == pytest.approx(device_s, rel=0.01)


def test_on_a_cpu_dispatch_and_work_add_up():
    cpu = device(kind="cpu")
    result = forecast(stream_graph(elements=1 << 20, count=100), cpu)
    work_s = sum(op.time.value_s for op in result.ops)
    assert result.total.value_s == pytest.approx(work_s + 100 * DISPATCH_S.value)


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(1, 40))
def test_the_interval_holds_the_estimate_and_stays_above_every_operator_at_its_best(m, k, layers):
    result = forecast(matmul_graph(m=m, k=k, layers=layers), device())
    total = result.total
    assert sum(op.time.low_s for op in result.ops) <= total.low_s * (1 + 1e-9)
    assert total.low_s <= total.value_s <= total.high_s


def test_shares_of_what_bounds_the_device_sum_to_one():
    shares = forecast(matmul_graph(layers=3), device()).bound_shares
    assert sum(shares.values()) == pytest.approx(1)


def test_a_lower_precision_is_faster_and_smaller():
    single, half = (forecast(matmul_graph(), device(), dtype=dtype) for dtype in (None, "bfloat16"))
    assert half.total.value_s < single.total.value_s
    assert half.peak_memory_bytes == pytest.approx(single.peak_memory_bytes / 2)
    assert half.dtype == "bfloat16"


def test_utilisation_is_the_share_of_the_peak_that_the_step_reaches():
    result = forecast(matmul_graph(8192, 8192, 8192), device())
    assert result.mfu == pytest.approx(2 * 8192**3 / 10e12 / result.total.value_s)
    assert result.mfu < 1


def test_an_unknown_operator_is_listed_and_costs_something():
    result = forecast(stream_graph(flop=None, category="unknown", name="aten.mystery.default", count=3), device())
    assert result.unknown_ops == {"aten.mystery.default": 3}
    assert "3 x aten.mystery.default: no cost rule" in result.warnings[0]
    assert result.total.value_s > 0
    assert result.bound == "unknown"


def test_a_model_that_does_not_fit_is_forecast_and_marked():
    result = forecast(stream_graph(elements=1 << 31), device())
    assert not result.fits
    assert any(w.startswith("does not fit: needs ") and "of 14.9 GiB" in w for w in result.warnings)


def test_a_device_without_the_precision_is_refused():
    with pytest.raises(UsageError, match="round has no float64 peak"):
        forecast(matmul_graph(dtype="float64"), device())


def test_an_empty_graph_takes_no_time():
    result = forecast(OpGraph("nothing", "inference", (), (), 0), device())
    assert (result.total.value_s, result.flop, result.mfu) == (0, 0, 0)


def test_a_view_costs_the_host_but_not_the_device():
    big = stream_graph(elements=1 << 26)
    view = Op("aten.view.default", "", "", "forward", "view", (0,), (0,), 0.0, 0.0, 0.0)
    with_views = graph(*big.ops, *[view] * 10, tensors=big.tensors)
    assert forecast(with_views, device()).total.value_s == pytest.approx(forecast(big, device()).total.value_s, rel=0.1)


def test_a_forecast_survives_the_store():
    result = forecast(matmul_graph(layers=2), device(), batch=2, dims={"B": 2})
    assert from_json(to_json(result), Forecast) == result


def test_a_cuda_graph_is_launched_once_and_a_compiled_wrapper_faster_than_eager():
    small = stream_graph(elements=16, count=1000)
    eager, compiled, replayed = (
        forecast(small, device(), host=host).total for host in ("eager", "compiled", "cuda-graph")
    )
    kernels_s = sum(op.time.value_s for op in forecast(small, device()).ops)
    assert compiled.value_s < 0.7 * eager.value_s
    assert replayed.value_s == pytest.approx(kernels_s, rel=0.02)
    assert replayed.low_s < replayed.value_s < replayed.high_s


def test_a_cpu_has_no_cuda_graphs():
    with pytest.raises(UsageError, match="round is a CPU, which has no CUDA graphs"):
        forecast(stream_graph(), device(kind="cpu"), host="cuda-graph")


def test_a_host_nobody_knows_is_refused():
    with pytest.raises(UsageError, match="wanted a host out of eager, compiled, cuda-graph; got 'lazy'"):
        forecast(stream_graph(), device(), host="lazy")


def test_the_energy_of_a_step_is_bound_by_the_power_limit_where_one_is_known():
    known, unknown = forecast(matmul_graph(), device(tdp_w=300.0)), forecast(matmul_graph(), device())
    assert known.energy_bound_j == pytest.approx(300 * known.total.value_s)
    assert unknown.energy_bound_j is None
