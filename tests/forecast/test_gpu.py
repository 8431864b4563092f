import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.devices.device import Quantity
from gnomon.forecast import gpu as gpu_model
from gnomon.forecast.predictors import Physics
from gnomon.forecast.price import spread
from gnomon.forecast.record import Estimate
from gnomon.forecast.work import AttentionShape, MatmulShape, RowShape, Work, works

from .build import device, matmul_graph, stream_graph

sizes = st.integers(1, 20000)


def price(work, gpu):
    return Physics().prices([work], gpu)[0]


def product(m, n, k, batch=1, precision="float32"):
    moved = 4.0 * batch * (m * k + k * n + m * n)
    return Work("matmul", precision, 2.0 * batch * m * n * k, moved, MatmulShape(batch, m, n, k))


@given(sizes, sizes, sizes, st.integers(1, 300))
def test_occupancy_is_a_share(m, n, k, batch):
    assert 0 < price(product(m, n, k, batch), device()).occupancy <= 1


@given(sizes, sizes, sizes, st.integers(1, 64), st.sampled_from(["float32", "bfloat16"]))
def test_no_product_is_faster_than_the_roofline(m, n, k, batch, precision):
    work, gpu = product(m, n, k, batch, precision), device()
    roofline = max(work.flop / gpu.peak(precision), work.moved_bytes / gpu.memory_bandwidth_b_s.value)
    time = price(work, gpu).time
    assert roofline < time.low_s <= time.value_s <= time.high_s


@pytest.mark.parametrize("category", ["elementwise", "copy", "softmax", "reduction", "convolution", "attention"])
@given(elements=st.integers(1, 10**9))
def test_every_category_has_an_ordered_range_above_the_roofline(category, elements):
    work = Work(category, "float32", float(elements), 12.0 * elements)
    time = price(work, device()).time
    assert 12.0 * elements / 1e12 < time.low_s <= time.value_s <= time.high_s


def test_a_huge_product_takes_flop_over_a_share_of_the_peak():
    made = price(product(32768, 32768, 32768), device())
    share = 2 * 32768**3 / 10e12 / made.time.value_s
    assert made.bound == "compute"
    assert 0.7 < share < 0.9


def test_a_tiny_operator_takes_the_launch_floor():
    made = price(product(1, 1, 1), device())
    floor = gpu_model.floor_s("linear", device()).value
    assert made.bound == "launch"
    assert floor < made.time.value_s < 1.05 * floor


@given(sizes, sizes, sizes)
def test_twice_the_bandwidth_never_slows(m, n, k):
    slow, fast = (price(product(m, n, k), device(memory_bandwidth_b_s=b)).time for b in (1e12, 2e12))
    assert (fast.low_s, fast.value_s, fast.high_s) <= (slow.low_s, slow.value_s, slow.high_s)
    assert fast.value_s <= slow.value_s


@given(st.integers(64, 512), st.integers(64, 512), st.integers(64, 512))
def test_twice_the_batch_takes_twice_as_long_once_there_are_many_waves(m, n, k):
    once, twice = (price(product(m, n, k, batch), device()).time.value_s for batch in (4000, 8000))
    assert twice / once == pytest.approx(2, rel=0.1)


@given(sizes, sizes, sizes, st.integers(1, 20000))
def test_more_rows_never_cost_less(m, n, k, more):
    less = price(product(m, n, k), device()).time.value_s
    assert price(product(m + more, n, k), device()).time.value_s >= less * (1 - 1e-12)


def test_one_tile_more_than_the_units_hold_starts_another_wave():
    full = price(product(256, 256, 4096, 100), device()).occupancy
    spilled = price(product(256, 256, 4096, 101), device()).occupancy
    assert spilled < 0.95 * full


def test_an_unknown_operator_is_bounded_by_its_traffic_and_says_so():
    work = Work("unknown", "float32", None, 1e9)
    made = price(work, device())
    assert made.bound == "unknown"
    assert made.time.value_s > 1e-3
    assert made.time.high_s > 10 * made.time.value_s


def test_a_view_is_free_on_the_device():
    assert price(Work("view", "float32", 0.0, 0.0), device()).time.value_s == 0


def test_a_precision_that_the_device_lacks_is_refused_by_name():
    with pytest.raises(UsageError, match="round has no float8 peak; it has float32, bfloat16"):
        price(product(8, 8, 8, precision="float8"), device())


def test_convolutions_use_tf32_where_there_is_one_and_products_do_not():
    plain = device()
    tensor = device(peak_flop_s={**plain.peak_flop_s, "tf32": plain.peak_flop_s["bfloat16"]})
    convolution = Work("convolution", "float32", 1e12, 1e6)
    faster = price(convolution, plain).time.value_s / price(convolution, tensor).time.value_s
    assert faster == pytest.approx(10, rel=0.01)
    same = product(4096, 4096, 4096)
    assert price(same, plain) == price(same, tensor)


@given(st.integers(2, 64), st.integers(2, 64), st.integers(2, 64))
def test_the_shape_of_a_product_is_read_from_its_operands(m, n, k):
    assert works(matmul_graph(m, n, k))[0].matmul == MatmulShape(1, m, n, k)
    assert works(matmul_graph(m, n, k, batch=3))[0].matmul == MatmulShape(3, m, n, k)


def test_half_precision_moves_half_the_bytes():
    single, half = (works(stream_graph(1000), dtype)[0] for dtype in (None, "bfloat16"))
    assert (half.precision, half.moved_bytes) == ("bfloat16", single.moved_bytes / 2)


def test_a_dtype_nobody_prices_is_refused():
    with pytest.raises(
        UsageError, match=r"wanted a dtype out of float64, float32, .*; got 'int4'\. Did you mean 'int8'"
    ):
        works(stream_graph(), "int4")


def test_the_spread_of_a_range_is_that_of_the_lognormal_it_bounds():
    time = Estimate(1.0, math.exp(-1.645 * 0.3), math.exp(1.645 * 0.3))
    assert spread(time) == pytest.approx(0.3)


def test_latencies_are_counted_in_clocks():
    slow, fast = (price(product(1, 1, 1), device(clock_hz=f)).time.value_s for f in (1e9, 2e9))
    assert slow / fast == pytest.approx(2**0.7, rel=0.01)


@given(st.floats(20, 2000), st.floats(3e-9, 2e-8))
def test_a_power_limit_never_speeds_up_and_its_share_is_a_share(watts, process):
    free, limited = device(), device(tdp_w=watts, process_m=process, clock_hz=1.5e9)
    share = gpu_model.power_share("linear", "float32", limited)
    assert 0 < share <= 1
    assert (
        price(product(4096, 4096, 4096), limited).time.value_s
        >= 0.99 * price(product(4096, 4096, 4096), replace(free, clock_hz=limited.clock_hz)).time.value_s
    )


def test_more_power_and_a_newer_process_hold_more_of_the_clock():
    def share(watts, process):
        gpu = device(tdp_w=watts, process_m=process, clock_hz=1.5e9, peak_flop_s={"float32": Quantity(60e12, "t")})
        return gpu_model.power_share("linear", "float32", gpu)

    assert share(70.0, 12e-9) < share(250.0, 12e-9) < share(250.0, 4e-9) <= 1


def attention(queries, keys, heads=32, kv_heads=32, window=0, causal=False):
    shape = AttentionShape(4, heads, kv_heads, queries, keys, 128, causal, window)
    moved = 2.0 * 4 * 128 * (2 * heads * queries + 2 * kv_heads * keys)
    flop = 4.0 * 4 * heads * 128 * queries * keys
    return Work("attention", "bfloat16", flop, moved, attention=shape, item_bytes=2.0, operator="sdpa")


def test_decoding_is_bound_by_the_keys_it_reads_and_prefill_by_arithmetic():
    assert price(attention(1, 16384), device()).bound == "memory"
    assert price(attention(8192, 8192), device()).bound == "compute"


def test_causal_attention_and_a_sliding_window_are_priced_by_the_keys_they_see():
    whole, causal, window = (
        price(one, device()).time.value_s
        for one in (
            attention(8192, 8192),
            attention(8192, 8192, causal=True),
            attention(8192, 8192, causal=True, window=256),
        )
    )
    assert 0.45 < causal / whole < 0.6
    assert window < causal / 4


def test_sharing_keys_among_heads_speeds_decoding_up():
    many, few = (price(attention(1, 32768, kv_heads=kv), device()).time.value_s for kv in (32, 4))
    assert few < many / 4


def test_short_rows_stay_in_registers_and_long_ones_are_read_again():
    short, long = (
        price(Work("softmax", "float32", 5e8, 8e8, rows=RowShape(10**8 // c, c)), device()).time.value_s
        for c in (1024, 2048)
    )
    assert long > 1.2 * short


def test_a_fused_kernel_streams_whatever_it_reduces():
    rows = RowShape(50_000, 2048)
    plain, fused = (
        price(Work("softmax", "float32", 5e8, 8e8, rows=rows, operator=name), device()).time.value_s
        for name in ("_softmax", "fused[add+_softmax]")
    )
    assert fused < plain
