"""torch.compile: TorchDynamo finds the graph, Inductor writes fused C++ or Triton kernels (Ansel et al. 2024).

Inductor keeps compiled kernels in a cache of its own (TORCHINDUCTOR_CACHE_DIR), so that of several processes only the
first pays for the C++ compiler; tracing the model again takes each of them some seconds.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import torch

from gnomon.core.errors import UsageError
from gnomon.spec.task import Task
from gnomon.workload.program import Program

_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Compile:
    name = "compile"
    title = "torch.compile (Inductor)"
    description = (
        "Fuses chains of elementwise operators and reductions into one kernel each, and drops Python from the step. "
        "Matrix products stay with the vendor's library unless mode is max-autotune."
    )
    options: Mapping[str, Any] = {"mode": "default", "fullgraph": False}
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.model.source == "onnx" or (program is not None and program.model is None):
            return "the model is run by ONNX Runtime, not by torch"
        if not torch._dynamo.is_dynamo_supported():
            return f"torch {torch.__version__} cannot compile under Python {sys.version.split()[0]}"
        if task.device.startswith("cuda"):
            return None if util.find_spec("triton") else "Inductor writes GPU kernels in Triton, which is not installed"
        return why_no_compiler(os.environ.get("CXX"), Path(sysconfig.get_path("include")))

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        if options["mode"] not in _MODES:
            raise UsageError(f"option mode of recipe 'compile' is {options['mode']!r}; known: {', '.join(_MODES)}")
        # in place, so that predict, step and optimizer keep working with the same module; shapes of a task are fixed
        program.model.compile(mode=options["mode"], fullgraph=options["fullgraph"], dynamic=False)
        return program


def why_no_compiler(cxx: str | None, include: Path) -> str | None:
    """What Inductor's C++ kernels lack. cxx: the user's choice of compiler. include: the folder of Python.h."""
    candidates = [cxx] if cxx else ["g++", "clang++"]
    if not any(shutil.which(name) for name in candidates):
        return f"Inductor needs a C++ compiler and {' or '.join(candidates)} is not on the PATH; install g++ or set CXX"
    if not (include / "Python.h").exists():
        return f"Inductor's kernels include Python.h, which is not in {include}; install python3-dev"
    return None


recipe = Compile()
