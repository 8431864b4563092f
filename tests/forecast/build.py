"""Small graphs and devices, written down by hand."""

from dataclasses import replace

from gnomon.devices.device import Device, Quantity
from gnomon.workload.graph import Op, OpGraph, TensorInfo


def device(**changes) -> Device:
    """A GPU with round numbers: 100 TFLOP/s in half precision, 10 in single, 1 TB/s, 100 units, 16 GB."""
    q = lambda value: Quantity(value, "test")  # noqa: E731
    plain = Device(
        name="round", vendor="test", kind="gpu", architecture="test",
        peak_flop_s={"float32": q(10e12), "bfloat16": q(100e12)},
        memory_bytes=q(16e9), memory_bandwidth_b_s=q(1e12), units=q(100), sources={"test": "made up"},
    )  # fmt: skip
    return replace(plain, **{key: q(v) if isinstance(v, float) else v for key, v in changes.items()})


def graph(*ops: Op, tensors=(), mode="inference") -> OpGraph:
    return OpGraph("made", mode, tuple(ops), tuple(tensors), parameters=0)


def matmul_graph(m=4096, n=4096, k=4096, batch=1, dtype="float32", layers=1) -> OpGraph:
    """`layers` equal products, each with operands of its own."""
    tensors, ops = [], []
    for _ in range(layers):
        lead = () if batch == 1 else (batch,)
        for shape in ((*lead, m, k), (*lead, k, n), (*lead, m, n)):
            tensors.append(TensorInfo(shape, dtype, len(tensors), "activation"))
        a, b, c = (len(tensors) - i for i in (3, 2, 1))
        read, written = tensors[a].bytes + tensors[b].bytes, tensors[c].bytes
        name = "aten.bmm.default" if batch > 1 else "aten.mm.default"
        ops.append(Op(name, "", "", "forward", "matmul", (a, b), (c,), 2.0 * batch * m * n * k, read, written))
    return graph(*ops, tensors=tensors)


def stream_graph(elements=1 << 26, category="elementwise", flop=1.0, name="aten.add.Tensor", count=1) -> OpGraph:
    """`count` operators that read two tensors and write one; flop is per element, None for an unknown operator."""
    tensors = [TensorInfo((elements,), "float32", i, "activation") for i in range(3)]
    total = None if flop is None else flop * elements
    op = Op(name, "", "", "forward", category, (0, 1), (2,), total, 8.0 * elements, 4.0 * elements)
    return graph(*[op] * count, tensors=tensors)
