import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.devices.breakeven import BreakEven, Kernel
from gnomon.forecast.predictors import Physics
from gnomon.forecast.setting import Setting, forecasts
from gnomon.forecast.whatif import WhatIf, WhatIfForecaster
from gnomon.workload.graph import Op, TensorInfo

from .build import device, graph, stream_graph

H100, V100, T4 = (catalogue.get(name) for name in ("H100-SXM", "V100-SXM2", "T4"))


def layers(m=4096, width=4096, count=4, dtype="bfloat16", mode="inference"):
    """Linear layers in a row, each followed by an addition."""
    tensors, ops = [], []
    for _ in range(count):
        at = len(tensors)
        for shape, role in (((m, width), "activation"), ((width, width), "parameter"), ((m, width), "activation")):
            tensors.append(TensorInfo(shape, dtype, len(tensors), role))
        x, w, y = (float(tensors[at + i].bytes) for i in range(3))
        ops.append(Op("aten.mm.default", "", "Linear", "forward", "matmul", (at, at + 1), (at + 2,),
                      2.0 * m * width * width, x + w, y))  # fmt: skip
        ops.append(
            Op("aten.add.Tensor", "", "", "forward", "elementwise", (at + 2,), (at + 2,), float(m * width), y, y)
        )
    return graph(*ops, tensors=tensors, mode=mode)


def table(name, kind="sparsity", levels=(0.5, 0.9), ratio=0.25):
    kernels = tuple(Kernel(64, 512, 512, level, ratio, ratio, ratio) for level in levels)
    return {name: BreakEven(name, kind, "made up", 1, "2026-01-01T00:00:00+00:00", kernels)}


def pair(made, where, what_if, **arguments):
    """The forecast as it is, and with the change."""
    plain, _ = forecasts(made, [where], Setting(predictor="physics"))
    return plain[0], WhatIfForecaster(made, what_if, predictor=Physics(), **arguments).on(where)


def of(forecast, category):
    return [op.time for op in forecast.ops if op.category == category]


@given(st.integers(1, 8192), st.integers(64, 4096))
def test_structured_sparsity_gives_at_most_twice_and_at_worst_nothing(m, width):
    plain, sparse = pair(layers(m, width, 1), H100, WhatIf(sparsity=0.5))
    (dense,), (changed,) = of(plain, "matmul"), of(sparse, "matmul")
    assert dense.value_s / 2 <= changed.value_s * (1 + 1e-9)
    assert changed.value_s <= dense.value_s
    assert changed.high_s == dense.high_s
    assert of(plain, "elementwise") == of(sparse, "elementwise")


def test_four_bit_weights_pay_where_weights_are_what_is_read():
    decoding = [f.total.value_s for f in pair(layers(m=1, width=16384), H100, WhatIf(bits=4))]
    prefill = [f.total.value_s for f in pair(layers(m=16384, width=4096), H100, WhatIf(bits=4))]
    assert 2.5 < decoding[0] / decoding[1] < 16 / 4.125
    assert prefill[0] / prefill[1] == pytest.approx(1, abs=0.1)


def test_eight_bits_run_on_the_int8_unit():
    plain, changed = pair(layers(m=16384), H100, WhatIf(bits=8))
    assert 1.5 < of(plain, "matmul")[0].value_s / of(changed, "matmul")[0].value_s < 2.1


def test_a_measured_table_scales_each_layers_time():
    where = device(name="here", kind="cpu")
    plain, changed = pair(layers(), where, WhatIf(sparsity=0.7, tables=table("here")))
    for dense, sparse in zip(of(plain, "matmul"), of(changed, "matmul"), strict=True):
        assert sparse.value_s == pytest.approx(dense.value_s / 4)
    assert any("by the table measured on it (made up, 2026-01-01)" in warning for warning in changed.warnings)


def test_a_table_goes_before_the_data_sheet():
    _, changed = pair(layers(), H100, WhatIf(sparsity=0.5, tables=table(H100.name, ratio=3.0)))
    plain, _ = forecasts(layers(), [H100], Setting(predictor="physics"))
    assert changed.total.value_s > plain[0].total.value_s


def test_lighter_weights_take_less_memory():
    made = layers(m=1)
    weights = 4 * 4096 * 4096 * 2
    for what_if, share in ((WhatIf(bits=4), 4.125 / 16), (WhatIf(bits=8), 1 / 2), (WhatIf(sparsity=0.5), 9 / 16)):
        plain, changed = pair(made, H100, what_if)
        assert plain.peak_memory_bytes - changed.peak_memory_bytes == pytest.approx(weights * (1 - share), abs=1)


@pytest.mark.parametrize(
    ("where", "asked", "message"),
    [
        (H100, {"sparsity": 0.73}, "H100 SXM: no speed-up of 73% sparsity is known; .* exactly 50 %"),
        (V100, {"sparsity": 0.5}, "V100 SXM2 32GB: no speed-up of 50% sparsity is known; its data sheet has no unit"),
        (V100, {"bits": 8}, "V100 SXM2 32GB has no int8 and no float8 unit"),
        (H100, {"bits": 3}, "H100 SXM: no speed-up of 3-bit weights is known"),
        (device(kind="cpu"), {"bits": 8}, "round: no speed-up of 8-bit weights is known"),
        (device(kind="cpu"), {"sparsity": 0.5}, "round: no speed-up of 50% sparsity is known"),
    ],
)
def test_a_speed_up_that_is_neither_measured_nor_stated_is_refused(where, asked, message):
    with pytest.raises(UsageError, match=message):
        pair(layers(dtype="float32" if where.kind == "cpu" else "float16"), where, WhatIf(**asked))


def test_float32_weights_have_no_sparse_unit_and_no_four_bit_products():
    with pytest.raises(UsageError, match=r"multiplies 2:4 sparse weights in float16, .*, not in float32"):
        pair(layers(dtype="float32"), H100, WhatIf(sparsity=0.5))
    with pytest.raises(UsageError, match="4-bit weights are multiplied in 16 bits, not in float32"):
        pair(layers(dtype="float32"), H100, WhatIf(bits=4))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "wanted one of --sparsity and --bits"),
        ({"sparsity": 0.5, "bits": 8}, "wanted one of --sparsity and --bits"),
        ({"sparsity": 50.0}, "wanted a share between 0 and 1, got 50"),
        ({"bits": 0}, "wanted 1 to 16, got 0"),
    ],
)
def test_a_change_that_is_none_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        WhatIf(**asked)


def test_only_the_inference_of_models_with_linear_layers_is_known():
    with pytest.raises(UsageError, match="are about inference; made is a training step"):
        WhatIfForecaster(layers(mode="training"), WhatIf(bits=8))
    with pytest.raises(UsageError, match="made has no linear layer"):
        WhatIfForecaster(stream_graph(), WhatIf(bits=8), predictor=Physics())
    with pytest.raises(UsageError, match="are about one device"):
        forecasts(layers(), [T4], Setting(bits=8, data=2))
