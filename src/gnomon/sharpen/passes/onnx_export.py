"""A task's model as an ONNX file and a session of ONNX Runtime over it: what both ONNX recipes share.

Files are kept under a digest of the task and of every package that shapes them; a process that comes later loads what
an earlier one exported, and two that export at the same time do not see each other's half-written files.
"""

import contextlib
import dataclasses
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnomon.core.digest import digest
from gnomon.core.errors import CheckFailed, NotRunnable
from gnomon.spec.task import Task
from gnomon.workload.program import Program, caller, flatten

FILE = "model.onnx"

# 23 has Attention as one operator (ONNX Runtime 1.23 and later run it: MiniLM 1x128 takes 36 ms instead of 42), 18 is
# what every supported version knows
_OPSETS = (23, 18)
_GENERATION = 1  # raise it when the same model would be written differently: older files are then left alone
_INLINE_BYTES = 1_500_000_000  # protobuf ends at 2 GiB; larger weights go into a file beside the model
_TOLERANCE = 1e-3  # of the largest output; float32 in another order of summation stays far below
# ONNX Runtime 1.31 fuses Add into LayerNormalization, and the fused CPU kernel is the slower one: MiniLM 1x128
# takes 31.3 ms without this fusion and 36.1 with it, in int8 15.4 and 22.9
SLOW_FUSIONS = ("SkipLayerNormFusion",)


def why_not(task: Task, program: Program | None, packages: Sequence[str]) -> str | None:
    """Why the task cannot run as an exported model in ONNX Runtime. packages: modules that have to be there."""
    if task.mode == "training":
        return "an exported model cannot be trained, and the task trains"
    if task.model.source == "onnx":
        return "the model is already run by ONNX Runtime"
    if task.device != "cpu":
        return f"the session runs on the CPU; the task runs on {task.device}"
    if task.dtype != "float32":
        return f"it exports float32; the task runs in {task.dtype}"
    missing = [name for name in packages if util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed; pip install 'gnomon[onnx]'"
    if program is not None and program.model is None:
        return "the model is not run by torch any more"
    return None


def exported(program: Program, artifacts: Path) -> Path:
    """The ONNX file of the program's model, exported and checked against the program unless it is there already.

    Raises NotRunnable when torch.export cannot follow the model, CheckFailed when the file computes something else.
    """
    return cached(artifacts, "fp32", key(program.task), lambda folder: _export(program, folder))


def key(task: Task, **more: Any) -> dict[str, Any]:
    """What an artefact depends on: the task, the packages that make it, and `more`."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    return {
        "task": task.digest,
        "generation": _GENERATION,
        **{name: metadata.version(name) for name in packages},
        **more,
    }


def cached(artifacts: Path, kind: str, depends_on: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """`artifacts/onnx-<kind>-<digest>/model.onnx`; `make` fills an empty folder with it when it is not there."""
    folder = artifacts / f"onnx-{kind}-{digest(dict(depends_on)).removeprefix('sha256:')[:16]}"
    if not (folder / FILE).exists():
        artifacts.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=artifacts, prefix="making-") as making:
            make(Path(making))
            Path(making).chmod(0o755)
            with contextlib.suppress(OSError):  # another process was first; its files are as good
                os.rename(making, folder)
                os.mkdir(making)  # for the clean-up
    return folder / FILE


def session(path: Path, threads: int) -> Any:
    """An onnxruntime.InferenceSession on the CPU with all graph optimisations that pay. Raises CheckFailed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors
    # idle threads of the pool would otherwise spin on into the next variant's call and slow it down
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
        )
    except Exception as error:  # its exceptions have no common base
        raise CheckFailed(
            f"ONNX Runtime cannot load {path}: {error}. Remove its folder to have it made again"
        ) from error


def loaded(path: Path, threads: int) -> Any:
    """`session`, but a file that does not load is removed, so that the next attempt makes it anew."""
    try:
        return session(path, threads)
    except CheckFailed:
        shutil.rmtree(path.parent)
        raise


def run_by(session: Any, program: Program) -> Program:
    """The program with its predictions made by an ONNX Runtime session; torch's model is let go."""
    wanted = [put.name for put in session.get_inputs()]

    def predict(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        arrays = session.run(None, {name: inputs[name].numpy() for name in wanted})
        return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)

    batch = program.inputs
    return dataclasses.replace(program, predict=predict, step=lambda: predict(batch), model=None, optimizer=None)


class _Positional(nn.Module):
    """The model as the exporter wants it: tensors in by position, a flat tuple of tensors out."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Tensor], where: str) -> None:
        super().__init__()
        self.model = model
        self._names, self._call = tuple(inputs), caller(model, inputs, where)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return flatten(self._call(dict(zip(self._names, values, strict=True))))


def _export(program: Program, folder: Path) -> None:
    reasons = []
    for opset in _OPSETS:
        for old in folder.iterdir():
            old.unlink()
        try:
            _write(program, folder / FILE, opset)
            _compare(program, run_by(session(folder / FILE, program.task.threads), program), opset)
            return
        except NotRunnable:
            raise
        except Exception as error:  # the exporter and its passes raise whatever their inner workings raise
            reasons.append(f"opset {opset}: {type(error).__name__}: {_first_line(error)}")
    raise CheckFailed(f"no ONNX file of {program.task.name} could be made. " + " ".join(reasons))


def _write(program: Program, path: Path, opset: int) -> None:
    assert program.model is not None  # why_not
    model = _Positional(program.model, program.inputs, f"task {program.task.name}").eval()
    size = sum(p.numel() * p.element_size() for p in program.model.parameters())
    values = tuple(value.clone() for value in program.inputs.values())  # inference tensors cannot be traced
    with _quiet():
        try:
            graph = torch.export.export(model, values, strict=False)
        except Exception as error:  # torch.export has no error class of its own for code that it cannot follow
            raise NotRunnable(
                f"torch.export cannot follow the model (control flow that depends on values?): {_first_line(error)}"
            ) from error
        _spell_out_masks(graph.graph)
        torch.onnx.export(
            graph,
            f=path,
            input_names=list(program.inputs),
            opset_version=opset,
            dynamo=True,
            external_data=size > _INLINE_BYTES,
            verbose=False,
        )


def _spell_out_masks(graph: torch.fx.Graph) -> None:
    """Attention masks in full: ONNX Runtime's Attention refuses one that is broadcast over the queries."""
    attention = torch.ops.aten.scaled_dot_product_attention.default
    for node in graph.find_nodes(op="call_function", target=attention):
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if mask is None:
            continue
        scores = [operand.meta["val"].shape[-2] for operand in node.args[:2]]  # queries, keys
        value = mask.meta["val"]
        if list(value.shape[-2:]) != scores:
            size = [*value.shape[:-2], *scores]
            with graph.inserting_before(node):
                whole = graph.call_function(torch.ops.aten.expand.default, (mask, size))
            whole.meta["val"] = value.expand(size)
            node.replace_input_with(mask, whole)


def _compare(program: Program, other: Program, opset: int) -> None:
    wanted, got = program.predict(program.inputs), other.predict(program.inputs)
    if len(wanted) != len(got):
        raise CheckFailed(f"the model has {len(wanted)} outputs, the exported one {len(got)}")
    for i, (a, b) in enumerate(zip(wanted, got, strict=True)):
        if a.shape != b.shape:
            raise CheckFailed(f"output {i} has shape {tuple(a.shape)}, the exported one {tuple(b.shape)}")
        if a.numel() == 0:
            continue
        bound = _TOLERANCE * max(float(a.abs().max()), 1e-6)
        distance = float((a.double() - b.double()).abs().max())
        if not distance <= bound:
            raise CheckFailed(f"output {i} differs by {distance:.3g} from the model's; {bound:.3g} would be rounding")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell of their progress and of packages that they could use on every channel there is."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
