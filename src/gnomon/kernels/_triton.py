"""What all Triton kernels share: whether they run here, their launch, and compiling them for GPUs that are not here.

Nothing here imports Triton at the top: it is an optional part, and asking `why_not` must work without it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

# Triton's own names for GPUs: backend, architecture, threads of a warp
TARGETS: Mapping[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),  # A100
    "sm_90": ("cuda", 90, 32),  # H100, H200
    "sm_100": ("cuda", 100, 32),  # B200
    "gfx942": ("hip", "gfx942", 64),  # MI300
}
_NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on tensors of the CPU. It reads this when a kernel is defined."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def why_not(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on a device; None when they can."""
    if find_spec("triton") is None:
        return "Triton is not installed; pip install 'gnomon[gpu]' (Linux only)"
    if device.type == "cpu" and interpreted():
        return None
    if device.type != "cuda":
        return f"Triton kernels run on a GPU; the tensors are on {device}"
    if not torch.cuda.is_available():
        return "torch finds no GPU; install a CUDA or ROCm build of torch and check the driver"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        return f"Triton kernels want compute capability 8.0 or newer; {name} has {capability[0]}.{capability[1]}"
    return None


@cache
def target_of(device: torch.device) -> str:
    """Name in TARGETS of the nearest target whose block sizes suit a device; the interpreter passes for an A100."""
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0]
    return {8: "sm_80", 9: "sm_90", 10: "sm_100"}.get(
        major, "sm_80"
    )  # consumer parts have the memory of an A100 or less


def precision(dtype: torch.dtype, target: str) -> str:
    """How tl.dot multiplies float32, the only dtype that it asks about.

    On NVIDIA as three TF32 products on tensor cores, whose error is about that of float32 (Ootomo and Yokota 2022,
    arXiv:2203.03341), or as one where torch.set_float32_matmul_precision allowed it. AMD multiplies float32 itself.
    """
    if dtype != torch.float32 or TARGETS[target][0] != "cuda":
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@dataclass(frozen=True)
class Launch:
    """One call of a kernel. arguments: its parameters by name; constants: those it is compiled for."""

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Start the kernel on the device of its tensors."""
        tensor = next(x for x in self.arguments.values() if isinstance(x, torch.Tensor))
        keywords = {**self.arguments, **self.constants, **self.options}
        if tensor.device.type == "cuda":
            with torch.cuda.device(tensor.device):
                self.kernel[(self.programs,)](**keywords, **self._launch_options())
        else:
            self.kernel[(self.programs,)](**keywords)

    def compile(self, target: str) -> Any:
        """Compile for one of TARGETS, without that GPU.

        Returns Triton's CompiledKernel: `asm` holds the intermediate codes by name ("ttgir", "ptx", "amdgcn", ...),
        `metadata.shared` the bytes of shared memory. The arguments may be meta tensors. It is specialized as a call
        with these arguments would be: on sizes of 1 and on what is a multiple of 16.
        """
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        signature: dict[str, Any] = {}
        constants: dict[Any, Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for position, name in enumerate(self.kernel.arg_names):
            if name in self.constants:
                signature[name] = "constexpr"
                constants[(position,)] = self.constants[name]
            else:
                signature[name] = _type(self.arguments[name], (position,), constants, attributes)
        source = ASTSource(self.kernel, signature, constants, attributes)
        options = {**self._launch_options(), **self.options}
        return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)

    def _launch_options(self) -> dict[str, Any]:
        # fused multiply-adds are asked for by name: Triton 3.9 warns where they are not, 3.10 does without
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


def _type(
    value: Any, path: tuple[int, ...], constants: dict[Any, Any], attributes: dict[tuple[int, ...], Any]
) -> str | tuple[Any, ...]:
    """Triton's name of an argument's type; what it is specialized on goes into `constants` and `attributes`."""
    divisible = [["tt.divisibility", 16]]
    if isinstance(value, tuple):
        return tuple(_type(item, (*path, i), constants, attributes) for i, item in enumerate(value))
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, torch.Tensor):
        if value.data_ptr() % 16 == 0:
            attributes[path] = divisible
        return f"*{_NAMES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, int):
        if value % 16 == 0:
            attributes[path] = divisible
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    return f"tensordesc<{_NAMES[value.base.dtype]}{list(value.block_shape)}>".replace(" ", "")
