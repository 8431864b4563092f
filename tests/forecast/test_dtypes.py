import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.forecast.dtypes import CASTS, captured_in, resized
from gnomon.forecast.predict import forecast
from gnomon.forecast.work import works
from gnomon.workload.graph import Op, TensorInfo
from gnomon.workload.memory import peak

from .build import device, graph, matmul_graph, stream_graph

EIGHT_BITS = ("float8", "int8")


def layer(m=64, n=64, k=64, batched=False):
    """One product with a parameter, and what comes after it."""
    lead = (2,) if batched else ()
    shapes = [((*lead, m, k), "activation"), ((*lead, k, n), "parameter"), ((*lead, m, n), "activation")]
    tensors = [TensorInfo(shape, "bfloat16", i, role) for i, (shape, role) in enumerate(shapes)]
    read, written = float(tensors[0].bytes + tensors[1].bytes), float(tensors[2].bytes)
    name = "aten.bmm.default" if batched else "aten.mm.default"
    flop = 2.0 * m * n * k * (2 if batched else 1)
    product = Op(name, "", "", "forward", "matmul", (0, 1), (2,), flop, read, written)
    gelu = Op("aten.gelu.default", "", "", "forward", "elementwise", (2,), (2,), 1.0, written, written)
    return graph(product, gelu, tensors=tensors)


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_in_8_bits_linear_layers_read_bytes_and_write_halves_and_the_rest_stays(dtype):
    product, gelu = works(layer(m=8, n=16, k=32), dtype)
    assert product.precision == dtype
    assert product.moved_bytes == 8 * 32 + 32 * 16 + 2 * 8 * 16
    assert product.weight_bytes == 32 * 16
    assert (gelu.precision, gelu.moved_bytes) == (CASTS[dtype].rest, 2 * 2 * 8 * 16)


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_the_batched_products_of_attention_stay_in_16_bits(dtype):
    assert works(layer(batched=True), dtype)[0].precision == CASTS[dtype].rest


def test_tf32_is_a_precision_of_float32_products_and_moves_the_same_bytes():
    plain, tensor = (works(matmul_graph(), dtype)[0] for dtype in ("float32", "tf32"))
    assert (tensor.precision, tensor.moved_bytes) == ("tf32", plain.moved_bytes)
    assert works(stream_graph(), "tf32")[0].precision == "float32"


@given(st.sampled_from(sorted(CASTS)), st.integers(1, 64), st.integers(1, 64))
def test_what_a_cast_says_twice_it_says_once(dtype, m, n):
    """Memory in a dtype does not depend on the dtype that the graph was captured in."""
    sizes = {peak(resized(matmul_graph(m, n, 8, dtype=own), dtype)).peak_bytes for own in ("float32", "float16")}
    assert len(sizes) == 1


def test_weights_take_8_bits_in_inference_and_16_where_they_are_trained():
    small = layer(m=1, n=512, k=512)
    in_16_bits = peak(resized(small, "bfloat16")).peak_bytes
    assert in_16_bits - peak(resized(small, "float8")).peak_bytes == 512 * 512
    trained = graph(*small.ops, tensors=small.tensors, mode="training")
    assert peak(resized(trained, "float8")).peak_bytes == in_16_bits


def test_a_model_is_captured_in_a_dtype_of_torch():
    assert [captured_in(d) for d in (None, "tf32", "float8", "float16")] == [None, "float32", "bfloat16", "float16"]


def test_a_device_without_float8_refuses_it_by_name():
    with pytest.raises(UsageError, match="round has no float8 peak; it has float32, bfloat16"):
        forecast(layer(), device(), dtype="float8")
