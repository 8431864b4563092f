import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from gnomon.core.errors import ManifestError
from gnomon.spec.onnx_graph import Put, read_graph
from tests.spec.onnx_files import write_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 2**40) | st.sampled_from(["batch", "N", "height?", ""]) | st.none(), max_size=5),
    st.sampled_from(["x", "images:0", "Inputs/a.b", "é"]),
    st.sampled_from(["FLOAT", "INT64", "UINT8", "BOOL", "FLOAT16", "DOUBLE", "INT32", "BFLOAT16"]),
)
def test_inputs_and_outputs_are_those_that_onnx_reads(folder, shape, name, dtype):
    path = write_onnx(folder / "a.onnx", shape, name, getattr(TensorProto, dtype))
    graph = read_graph(path)
    theirs = onnx.load(str(path)).graph
    weights = {one.name for one in theirs.initializer}
    assert [put.name for put in graph.inputs] == [one.name for one in theirs.input if one.name not in weights]
    assert [put.name for put in graph.outputs] == ["out:0"]
    axes = theirs.input[0].type.tensor_type.shape.dim
    assert graph.inputs[0].shape == tuple(axis.dim_value or axis.dim_param or None for axis in axes)
    wanted = {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype, dtype.lower())
    assert graph.inputs[0].dtype == wanted


def test_a_type_that_no_tensor_of_ours_has_is_told_as_none(folder):
    path = write_onnx(folder / "s.onnx", dtype=TensorProto.UINT16)
    assert read_graph(path).inputs[0].dtype is None


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_and_never_anything_else(folder, data):
    whole = write_onnx(folder / "whole.onnx").read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    else:
        damaged = data.draw(st.binary(max_size=200))
    path = folder / "damaged.onnx"
    path.write_bytes(damaged)
    try:
        graph = read_graph(path)
    except ManifestError as error:
        message = str(error)
    else:
        message = "is no ONNX file" if isinstance(graph.inputs, tuple) else ""
    assert "is no ONNX file" in message


def test_what_is_no_onnx_file_says_so(folder):
    empty = folder / "empty.onnx"
    empty.touch()
    with pytest.raises(ManifestError, match="is no ONNX file"):
        read_graph(empty)
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_graph(folder / "absent.onnx")
    cut = folder / "cut.onnx"
    cut.write_bytes(write_onnx(folder / "b.onnx").read_bytes()[:-3])
    with pytest.raises(ManifestError, match=r"is no ONNX file: byte .* begins no whole field"):
        read_graph(cut)


def test_open_axes_get_the_stated_size_else_the_name_of_the_graph():
    put = Put("x", "float32", ("batch", 3, "height 1", None))
    assert put.symbolic() == ["B", 3, "Height", "D3"]
    assert put.symbolic(["B", 3, 224, "W"]) == ["B", 3, 224, "W"]
    assert Put("x", "float32", (1, 3)).symbolic() == [1, 3]
