"""A program: a task brought to life, ready to be called. The one place where a manifest turns into a torch module."""

import inspect
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from gnomon.core.errors import ManifestError, NotRunnable
from gnomon.spec.task import Task, Training
from gnomon.workload import inputs as examples
from gnomon.workload import source

Predict = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
Loss = Callable[[tuple[Tensor, ...], Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Program:
    """A task in this process.

    inputs: one example batch by name. predict: inputs to a tuple of output tensors, without gradients. step: the call
    that is timed (one prediction, or one training step: forward, loss, backward, optimizer, gradients cleared).
    model, optimizer: None where an engine other than torch runs the model.
    """

    task: Task
    inputs: Mapping[str, Tensor]
    predict: Predict
    step: Callable[[], tuple[Tensor, ...]]
    model: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None


def build(task: Task, *, device: str = "cpu") -> Program:
    """The task's model with its weights, inputs and step on `device`. Seeds Python, NumPy and torch with task.seed.

    Code is imported only from installed packages, and from task.folder when the task is trusted. Threads are the
    caller's business. Raises ManifestError when a part of the task does not fit, NotRunnable when a package or the
    device is missing, DamagedData when the weights are not those that were locked.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise NotRunnable(f"task {task.name} was to run on {device!r}; torch sees no CUDA device here. Use cpu")
    if task.model.source == "onnx":
        return _build_onnx(task)
    model = source.model(task).to(device=device, dtype=floating_dtype(task))
    batch = {name: value.to(device) for name, value in examples.example_inputs(task, floating_dtype(task)).items()}
    return _finish(task, model, batch)


def build_fake(task: Task) -> tuple[Program, FakeTensorMode]:
    """The same program on fake tensors: shapes and control flow without the memory and the time of the weights.

    Integer and sparse inputs stay real, so that control flow that depends on them (masks, graph edges) is the real
    one. Inside the mode that comes back, `step` can be run and recorded. Raises as `build` does, and NotRunnable for
    ONNX models.
    """
    if task.model.source == "onnx":
        raise NotRunnable(
            f"task {task.name} runs an ONNX file; capture needs a torch model. Give the model as python or huggingface"
        )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.random.fork_rng(devices=[]):
        model = source.fake_model(task, mode, floating_dtype(task))
        batch = fake_inputs(examples.example_inputs(task, floating_dtype(task)), mode)
        with mode:
            return _finish(task, model, batch, seed=False), mode


def fake_inputs(batch: Mapping[str, Tensor], mode: FakeTensorMode) -> dict[str, Tensor]:
    """Floating-point inputs as fake tensors; integers, booleans and sparse matrices as real copies."""
    return {
        name: value.detach().clone() if source.stays_real(value) else mode.from_tensor(value)
        for name, value in batch.items()
    }


def floating_dtype(task: Task) -> torch.dtype:
    """The dtype in which the model's parameters and floating-point inputs are held. Raises ManifestError."""
    dtype: torch.dtype = getattr(torch, task.dtype)
    if not dtype.is_floating_point:
        raise ManifestError(
            f"task {task.name}: dtype is {task.dtype!r}; a model's parameters are float64, float32, float16 or bfloat16"
        )
    return dtype


def _finish(task: Task, model: nn.Module, batch: Mapping[str, Tensor], seed: bool = True) -> Program:
    call = caller(model, batch, f"task {task.name}: model.inputs")
    if task.mode == "training":
        training = task.training or Training()
        chosen = loss(training.loss, task)
        step = TrainingStep(model.train(), call, batch, optimizer(training, model.parameters()), chosen)
        if seed:
            seed_all(task.seed)
        return Program(task, batch, _Predict(model, call), step, model, step.optimizer)
    predict = _Predict(model.eval(), call)
    if seed:
        seed_all(task.seed)
    return Program(task, batch, predict, lambda: predict(batch), model)


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - models and data sets of others draw from the global generator
    torch.manual_seed(seed)


class _Predict:
    """Inputs by name to a tuple of outputs: evaluation mode, no gradients; the model's mode is put back after."""

    def __init__(self, model: nn.Module, call: Callable[[Mapping[str, Tensor]], Any]) -> None:
        self._model, self._call = model, call

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        was_training = self._model.training
        if was_training:
            self._model.eval()
        try:
            with torch.inference_mode():
                return flatten(self._call(inputs))
        finally:
            if was_training:
                self._model.train()


class TrainingStep:
    """One step of training in three parts, so that a recorder can tell them apart; calling it runs all three.

    Outputs are dropped once the loss is there, and gradients are set to None at the end, so the memory of one step is
    that of any other.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Callable[[Mapping[str, Tensor]], Any],
        inputs: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        loss: Loss,
    ) -> None:
        self.model, self.inputs, self.optimizer = model, inputs, optimizer
        self._call, self._loss = call, loss

    def forward(self) -> Tensor:
        """The loss, with its graph. Raises ManifestError when the loss is no scalar or has no gradient."""
        value = self._loss(flatten(self._call(self.inputs)), self.inputs)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            what = f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else repr(type(value))
            raise ManifestError(
                f"the training loss must be one number that depends on the parameters; got {what}. Check training.loss"
            )
        return value

    def update(self) -> None:
        """The optimizer's step; gradients are dropped after it."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self) -> tuple[Tensor, ...]:
        value = self.forward()
        value.backward()
        self.update()
        return (value.detach(),)


def caller(model: nn.Module, inputs: Mapping[str, Tensor], where: str) -> Callable[[Mapping[str, Tensor]], Any]:
    """How `model` takes these inputs: by name where its forward knows the names, else in the order given.

    Raises ManifestError when it takes neither.
    """
    names = tuple(inputs)
    signature = inspect.signature(model.forward)
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError:
        pass
    else:
        return lambda batch: model(**{name: batch[name] for name in names})
    if len(names) == 1 or not _shares_a_name(signature, names):
        try:
            signature.bind(*names)
        except TypeError:
            pass
        else:
            return lambda batch: model(*(batch[name] for name in names))
    raise ManifestError(
        f"{where}: {type(model).__name__}.forward{signature} cannot take the inputs {', '.join(names)}. "
        "Name the inputs as its parameters are named"
    )


def _shares_a_name(signature: inspect.Signature, names: Iterable[str]) -> bool:
    return any(name in signature.parameters for name in names)


def flatten(value: Any) -> tuple[Tensor, ...]:
    """The tensors in a model's output, in order: a tensor, or nested lists, tuples, dicts and ModelOutputs of them.

    What holds no tensors of its own (None, a key-value cache) is left out. Raises ManifestError when nothing is left.
    """
    found = tuple(_tensors(value))
    if not found:
        raise ManifestError(f"the model returned {type(value).__name__}, in which there is no tensor")
    return found


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `training` names, with PyTorch's defaults apart from the learning rate.

    Raises ManifestError when no parameter takes a gradient.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ManifestError("training needs parameters that take a gradient; the model has none. Set mode to inference")
    rate = training.learning_rate
    if training.optimizer in ("sgd", "momentum"):
        return torch.optim.SGD(trained, lr=rate, momentum=0.9 if training.optimizer == "momentum" else 0.0)
    return (torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW)(trained, lr=rate)


def loss(name: str, task: Task | None = None) -> Loss:
    """'mean' or 'sum' of the first output, or the imported 'module:callable' under the rules for a task's code."""
    if name in ("mean", "sum"):
        return _mean if name == "mean" else _sum
    if task is None or ":" not in name:
        raise ManifestError(f"training.loss is {name!r}; wanted 'mean', 'sum' or 'module:callable'")
    chosen: Loss = source.load(name, task, "training.loss")
    return chosen


def _mean(outputs: tuple[Tensor, ...], inputs: Mapping[str, Tensor]) -> Tensor:
    return outputs[0].mean()


def _sum(outputs: tuple[Tensor, ...], inputs: Mapping[str, Tensor]) -> Tensor:
    return outputs[0].sum()


def _build_onnx(task: Task) -> Program:
    if task.mode == "training":
        raise ManifestError(f"task {task.name}: mode is training, but an ONNX model can only be run. Use inference")
    session = source.onnx_session(task)
    batch = examples.example_inputs(task, None)
    wanted = {put.name: put.type for put in session.get_inputs()}
    if set(wanted) != set(batch):
        raise ManifestError(
            f"task {task.name}: model.inputs are {', '.join(batch)}; {task.model.target} takes "
            + ", ".join(f"{name} ({kind})" for name, kind in wanted.items())
        )

    def predict(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        arrays = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)

    seed_all(task.seed)
    return Program(task, batch, predict, lambda: predict(batch))
