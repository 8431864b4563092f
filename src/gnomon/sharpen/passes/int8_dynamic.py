"""Dynamic int8 for linear layers: weights quantised once per output channel, activations in every call.

Two engines compute the same thing up to how activations are rounded (N rows, I inputs, O outputs):

- 'packed': FBGEMM or oneDNN behind torch.ops.quantized, weights laid out once, one scale and zero point for the whole
  activation. The fastest without a compiler; torch has announced that it will go.
- 'int_mm': torch._int_mm on plain int8 tensors, one scale per row of the activation. Closer to float32, since a row
  with large values does not coarsen the others; its rounding and scaling are elementwise passes that a compiler fuses.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gnomon.core.errors import UsageError
from gnomon.sharpen.int8 import Quantized, here, quantize_rows
from gnomon.spec.task import Task
from gnomon.workload.program import Program

_ENGINES = ("auto", "packed", "int_mm")
_PACKERS = ("x86", "fbgemm")


class Int8Dynamic:
    name = "int8-dynamic"
    title = "dynamic int8 linear layers"
    description = (
        "Weights of linear layers as int8 with one scale per output channel, activations rounded to int8 in each call. "
        "A quarter of the weights' traffic and, with VNNI or AMX, up to four times the products per second."
    )
    options: Mapping[str, Any] = {"engine": "auto", "skip": []}
    beside: Mapping[str, Mapping[str, Any]] = {"compile": {"engine": "int_mm"}}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.mode == "training":
            return "int8 weights have no gradients, and the task trains"
        if task.model.source == "onnx":
            return "the model is run by ONNX Runtime, not by torch"
        if task.device != "cpu":
            return f"its kernels are for CPUs; the task runs on {task.device}"
        if task.dtype != "float32":
            return f"it starts from float32; the task runs in {task.dtype}"
        if here().why_not is not None:
            return here().why_not
        if program is None:
            return None
        if program.model is None:
            return "the model is not run by torch any more"
        if next(_linear_layers(program.model), None) is None:
            return "the model has no linear layer"
        return None

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        make = _maker(options["engine"])
        for place in list(_linear_layers(program.model)):
            if not any(place.path == name or place.path.endswith("." + name) for name in options["skip"]):
                setattr(place.parent, place.name, make(place.layer))
        return program


class Int8Linear(nn.Module):
    """y = round(x / s_x) W s_x s_w + b with one s_x per row of x and one s_w per row of the weight.

    weight: from `quantize_rows`. bias: [O] or None. x: [..., I] float32; returns [..., O] float32. The integer product
    is exact; largest_weight must be one for which it is.
    """

    def __init__(self, weight: Quantized, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight_IO", _canonical(weight.values.t()))
        self.register_buffer("scale_O", weight.scale)
        self.register_buffer("bias_O", None if bias is None else bias.detach().clone())
        self.weight_IO: Tensor
        self.scale_O: Tensor
        self.bias_O: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        # a row of zeros must not divide by zero; any scale is right for it
        scale_N1 = x_NI.abs().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny * 127) / 127
        sums_NO = torch._int_mm(_canonical(torch.round(x_NI / scale_N1)), self.weight_IO)
        y_NO = sums_NO.to(x.dtype) * scale_N1 * self.scale_O
        if self.bias_O is not None:
            y_NO = y_NO + self.bias_O
        return y_NO.reshape(*x.shape[:-1], y_NO.shape[-1])


def _canonical(values: Tensor) -> Tensor:
    """As int8 with the strides of a fresh tensor.

    torch._int_mm (seen in torch 2.13) reads beyond its operands when one has a dimension of size 1 and the strides
    (1, 1), as `t().contiguous()` leaves them: the result is garbage, without an error.
    """
    return values.to(torch.int8, memory_format=torch.contiguous_format, copy=True)


class PackedLinear(nn.Module):
    """The same product by torch's packed int8 kernels: one scale and zero point for all of x.

    reduce_range: activations of 7 bits, for CPUs that sum in 16 bits.
    """

    def __init__(self, weight: Quantized, bias: Tensor | None, reduce_range: bool) -> None:
        super().__init__()
        rows = weight.values.shape[0]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)  # why there is a second engine
            tensor = torch._make_per_channel_quantized_tensor(
                weight.values, weight.scale.double(), torch.zeros(rows, dtype=torch.long), 0
            )
            before = torch.backends.quantized.engine
            torch.backends.quantized.engine = _packer() or before
            try:
                self._packed = torch.ops.quantized.linear_prepack(tensor, None if bias is None else bias.detach())
            finally:
                torch.backends.quantized.engine = before
        self._reduce_range = reduce_range

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, self._reduce_range)
        return y


class _Place(NamedTuple):
    parent: nn.Module
    name: str
    path: str
    layer: nn.Linear


def _linear_layers(model: nn.Module) -> Iterator[_Place]:
    """Where linear layers hang. Subclasses stay: their owners read the weight themselves."""
    for path, parent in model.named_modules():
        if isinstance(parent, nn.TransformerEncoderLayer):
            continue  # its fused path reads linear1.weight and linear2.weight
        for name, layer in parent.named_children():
            if type(layer) is nn.Linear:
                yield _Place(parent, name, f"{path}.{name}" if path else name, layer)


def _packer() -> str | None:
    return next((name for name in _PACKERS if name in torch.backends.quantized.supported_engines), None)


def _maker(engine: str) -> Callable[[nn.Linear], nn.Module]:
    if engine not in _ENGINES:
        raise UsageError(f"option engine of recipe 'int8-dynamic' is {engine!r}; known: {', '.join(_ENGINES)}")
    if engine == "auto":
        engine = "packed" if _packer() else "int_mm"
    saturates, largest = here().saturates, here().largest_weight
    if engine == "packed":
        return lambda layer: PackedLinear(quantize_rows(layer.weight), layer.bias, reduce_range=saturates)
    return lambda layer: Int8Linear(quantize_rows(layer.weight, largest), layer.bias)


recipe = Int8Dynamic()
