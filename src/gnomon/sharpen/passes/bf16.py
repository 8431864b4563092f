"""bfloat16 by autocast: matrix products and convolutions in 16 bits, reductions and normalisations as before."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gnomon.spec.task import Task
from gnomon.workload.program import Program


class Bf16:
    name = "bf16"
    title = "bfloat16 autocast"
    description = (
        "Matrix products and convolutions in bfloat16. Half the traffic for weights, and twice the speed or more where "
        "the hardware multiplies bfloat16 (AMX, AVX512-BF16, tensor cores); elsewhere it is emulated and slower."
    )
    options: Mapping[str, Any] = {}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.dtype != "float32":
            return f"autocast starts from float32; the task runs in {task.dtype}"
        if task.model.source == "onnx" or (program is not None and program.model is None):
            return "the model is run by ONNX Runtime, not by torch"
        if task.device.startswith("cuda") and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
            return f"{torch.cuda.get_device_name(task.device)} has no bfloat16 units"
        return None

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        if program.task.mode == "inference":
            _hold_weights(program.model)
        # the instance's own forward, so that predict, step, gradients and a compiler see the same model as before
        program.model.forward = _autocast(program.model.forward, program.task.device.partition(":")[0])
        return program


def _hold_weights(model: nn.Module) -> None:
    """Cast weights once: outside of training autocast would cast them again in every call."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            # a new parameter: a weight that is tied to an embedding stays float32 there
            module.weight = nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)


def _autocast(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(*args, **kwargs)
        return pytree.tree_map_only(Tensor, _float32, outputs)

    return run


def _float32(value: Tensor) -> Tensor:
    """Who takes the outputs was promised float32."""
    return value.float() if value.dtype == torch.bfloat16 else value


recipe = Bf16()
