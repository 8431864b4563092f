import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.forecast import cpu
from gnomon.forecast.price import Efficiency
from gnomon.forecast.work import ConvolutionShape, MatmulShape, Work

from .build import device

MACHINE = device(kind="cpu", cache_bytes=32e6)
sizes = st.integers(1, 8192)


def product(m, n, k, batch=1):
    moved = 4.0 * batch * (m * k + k * n + m * n)
    return Work("matmul", "float32", 2.0 * batch * m * n * k, moved, MatmulShape(batch, m, n, k))


def convolution(inputs, outputs, groups=1, operator="convolution"):
    shape = ConvolutionShape(1, groups, inputs, outputs, kernel=9, pixels=3136, source=3136)
    flop = 2.0 * groups * inputs * outputs * 9 * 3136
    return Work("convolution", "float32", flop, 1e4, operator=operator, convolution=shape)


def seconds(work, machine=MACHINE, **options):
    return cpu.price(work, machine, **options).time.value_s


def test_a_cpu_reads_what_its_cache_holds_faster():
    small, large = (Work("elementwise", "float32", 1.0, moved) for moved in (1e6, 1e9))
    per_byte = [seconds(w) / w.moved_bytes for w in (small, large)]
    assert per_byte[1] / per_byte[0] == pytest.approx(cpu.CACHED.value, rel=0.01)


@given(st.floats(1.0, 1e9), st.floats(1.0, 10.0))
def test_more_bytes_never_take_less_time_although_caches_hold_fewer(moved, times):
    less, more = (seconds(Work("elementwise", "float32", 1.0, moved * t)) for t in (1.0, times))
    assert more >= less * (1 - 1e-12)


@given(sizes, sizes, sizes, st.integers(1, 64))
def test_no_product_beats_the_peak_and_its_range_holds_its_estimate(m, n, k, batch):
    work = product(m, n, k, batch)
    time = cpu.price(work, MACHINE).time
    assert work.flop / MACHINE.peak("float32") <= time.low_s <= time.value_s <= time.high_s


@given(sizes, sizes, sizes, st.integers(1, 4096))
def test_more_rows_never_cost_less(m, n, k, more):
    assert seconds(product(m + more, n, k)) >= seconds(product(m, n, k)) * (1 - 1e-12)


def test_one_row_times_a_large_matrix_is_bound_by_memory_and_many_rows_by_arithmetic():
    machine = device(kind="cpu", cache_bytes=32e6, memory_bandwidth_b_s=1e11)
    row, many = (cpu.price(product(m, 8192, 8192), machine) for m in (1, 4096))
    assert (row.bound, many.bound) == ("memory", "compute")
    assert row.time.value_s == pytest.approx(4 * 8192**2 / 1e11 / cpu.CPU["matmul"].memory.value, rel=0.05)
    assert many.time.value_s == pytest.approx(2 * 4096 * 8192**2 / 10e12 / cpu.CPU["matmul"].compute.value, rel=0.05)


def test_a_depthwise_convolution_is_far_less_efficient_than_a_dense_one():
    dense, depthwise = convolution(128, 128), convolution(1, 1, groups=128)
    rates = [work.flop / seconds(work) for work in (dense, depthwise)]
    assert rates[0] > 8 * rates[1]


def test_the_products_of_a_backward_convolution_are_less_efficient():
    forward, backward = convolution(128, 128), convolution(128, 128, operator="convolution_backward")
    assert seconds(backward) == pytest.approx(seconds(forward) / 0.75, rel=1e-3)


def test_a_hyperbolic_tangent_takes_the_time_of_many_additions_and_an_unlisted_operator_of_one():
    tanh, add = (Work("elementwise", "float32", 1e9, 1.0, operator=name) for name in ("tanh", "add"))
    assert seconds(tanh) / seconds(add) == pytest.approx(cpu.WEIGHT["tanh"])


def test_outputs_that_the_c_library_maps_anew_cost_their_page_faults():
    kept, mapped = (Work("copy", "float32", 0.0, 2.0 * 2**25, fresh_bytes=size) for size in (2**25 - 1, 2**25))
    page = Efficiency(2e-6, 1e-6, 3e-6)
    extra = seconds(mapped, page_s=page) - seconds(kept, page_s=page)
    assert extra == pytest.approx(2**25 / 4096 * 2e-6)
    assert cpu.mapped_pages(kept) == 0


def test_a_cpu_whose_cache_is_not_known_is_taken_to_have_none():
    work = Work("elementwise", "float32", 1.0, 1e6)
    assert seconds(work, device(kind="cpu")) == pytest.approx(1e6 / 1e12 / 0.8)


def test_an_unknown_operator_takes_its_traffic_and_its_range_is_wide():
    price = cpu.price(Work("unknown", "float32", None, 1e9), MACHINE)
    assert price.bound == "unknown"
    assert price.time.value_s > 1e-3
    assert price.time.high_s > 10 * price.time.value_s


def test_a_precision_that_the_cpu_lacks_is_refused_by_name():
    with pytest.raises(UsageError, match="round has no float8 peak"):
        cpu.price(Work("matmul", "float8", 1.0, 1.0), MACHINE)
