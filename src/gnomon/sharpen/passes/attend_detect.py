"""Detected attention (DOTA): a trained low-precision detector finds strong keys, attention is exact on them alone."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.kernels.detected_attention import DetectedAttention, detector_loss, detectors_only, huggingface
from gnomon.spec.task import Task
from gnomon.workload.inputs import example_inputs
from gnomon.workload.program import Program, caller, floating_dtype

_FIRST_SEED = 10_000  # batches that the detectors learn from are none of those that verification looks at


class AttendDetect:
    name = "attend.detect"
    title = "detected attention"
    description = (
        "A detector of low rank and few bits is trained to estimate each layer's attention scores on batches of the "
        "task, with the model frozen; then every query attends to the share of keys with the largest estimates. Pays "
        "from about a thousand tokens on; what it costs in quality is verified like any other recipe."
    )
    # rank 0: a quarter of the head size. block: queries and keys of a block; 0 keeps single keys. batches: how many
    # different ones are learnt from. rate: of learning
    options: Mapping[str, Any] = {
        "retention": 0.1, "rank": 0, "bits": 4, "block": 0, "steps": 200, "batches": 16, "rate": 0.003
    }  # fmt: skip
    beside: Mapping[str, Mapping[str, Any]] = {}

    def why_not(self, task: Task, program: Program | None) -> str | None:
        if task.mode == "training":
            return "its detectors are trained once for inference with a frozen model, and the task trains"
        if task.model.source == "onnx":
            return "the model is run by ONNX Runtime, not by torch"
        if program is None:
            return None
        if program.model is None:
            return "the model is not run by torch any more"
        found = _transformers(program.model)
        return "the model is not one of transformers" if found is None else huggingface.why_not(found)

    def prepare(self, program: Program, options: Mapping[str, Any], artifacts: Path) -> Program:
        assert program.model is not None  # why_not
        found = _transformers(program.model)
        _check(options)
        size = options["block"]
        try:
            wrapped = huggingface.wrap(
                found,
                retention=options["retention"],
                rank=options["rank"] or None,
                bits=options["bits"],
                granularity="block" if size else "token",
                block=(size, size) if size else (32, 32),
                seed=program.task.seed,
            )
        except ValueError as error:
            raise UsageError(f"recipe 'attend.detect': {error}") from error
        detectors = nn.ModuleList(one.detector for one in wrapped)
        called: list[nn.Module] = []
        hooks = [one.register_forward_hook(lambda module, *_: called.append(module)) for one in wrapped]
        program.predict(program.inputs)
        for hook in hooks:
            hook.remove()
        if not called:
            raise NotRunnable("every attention of the example batch reads cached keys, which a detector cannot see")
        key = hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode()).hexdigest()[:12]
        _trained(detectors, artifacts / f"detectors-{key}.safetensors", program, found, options)
        return program


def _check(options: Mapping[str, Any]) -> None:
    for name in ("rank", "block", "steps"):
        if isinstance(options[name], bool) or not isinstance(options[name], int) or options[name] < 0:
            raise UsageError(f"option {name} of recipe 'attend.detect' must be an int from 0 on; got {options[name]!r}")
    if not isinstance(options["batches"], int) or options["batches"] < 1 or not options["rate"] > 0:
        raise UsageError("options batches and rate of recipe 'attend.detect' must be positive")


def _transformers(model: nn.Module) -> Any:
    """The outermost model of transformers inside, or None."""
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return None
    return next((one for one in model.modules() if isinstance(one, PreTrainedModel)), None)


def _trained(detectors: nn.Module, path: Path, program: Program, model: nn.Module, options: Mapping[str, Any]) -> None:
    """Load the detectors, or train and keep them; a file that does not fit is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if path.exists():
        try:
            detectors.load_state_dict(load_file(path))
            return
        except (SafetensorError, RuntimeError):
            path.unlink()
    _train(program, model, options)
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in detectors.state_dict().items()}, partial)
    partial.replace(path)


def _train(program: Program, model: nn.Module, options: Mapping[str, Any]) -> None:
    """The detectors alone, on batches of the task."""
    assert program.model is not None
    call = caller(program.model, program.inputs, f"task {program.task.name}: model.inputs")
    batches = itertools.cycle(list(_batches(program, options["batches"])))
    steps: int = options["steps"]
    with detectors_only(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, options["rate"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        for batch in itertools.islice(batches, steps):
            call(batch)
            optimizer.zero_grad(set_to_none=True)
            detector_loss(model).backward()
            optimizer.step()
            schedule.step()
        optimizer.zero_grad(set_to_none=True)
    for one in model.modules():
        if isinstance(one, DetectedAttention):
            one.loss = None


def _batches(program: Program, count: int) -> Iterator[dict[str, Tensor]]:
    for i in range(count):
        task = replace(program.task, seed=program.task.seed + _FIRST_SEED + i)
        batch = example_inputs(task, floating_dtype(task))
        yield {name: value.to(program.inputs[name].device) for name, value in batch.items()}


recipe = AttendDetect()
