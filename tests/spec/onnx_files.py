"""Small ONNX files for tests, made by the onnx package."""

import onnx
from onnx import TensorProto, helper


def write_onnx(path, shape=("batch", 3, 32, 32), name="data", dtype=TensorProto.FLOAT, weights=8):
    """y = x * w, with a weight that older files also list among the inputs."""
    put = helper.make_tensor_value_info(name, dtype, shape)
    out = helper.make_tensor_value_info("out:0", dtype, shape)
    weight = helper.make_tensor("w", dtype, [1], [2])
    unused = helper.make_tensor("unused", TensorProto.FLOAT, [weights], [0.5] * weights)
    listed = helper.make_tensor_value_info("w", dtype, [1])
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "w"], ["out:0"])], "g", [put, listed], [out], [weight, unused]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
