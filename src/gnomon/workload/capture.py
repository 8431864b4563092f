"""Capture: run one step on fake tensors and write down every aten operator, with its module, phase, cost and memory.

Fake tensors (torch._subclasses.FakeTensorMode) have shapes and no data, so a model of any size is captured on a laptop.
Autograd is the real one: the backward pass, what it saves and when it lets go are observed, not modelled.
"""

import gc
import math
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    unset_fake_temporarily,
)
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.spec.task import Task, Training
from gnomon.workload import program, source
from gnomon.workload.cost import Call, Operand, cost
from gnomon.workload.graph import Op, OpGraph, Phase, Role, Storage, TensorInfo

Mode = Literal["inference", "training"]
Step = program.TrainingStep

_NOT_FAKE = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
_SILENT = {"prim", "profiler", "_profiler"}  # queries of a tensor's device, marks in a profile: no computation
_DROPPED = {"pin_memory", "layout", "device", "generator"}


def capture_task(task: Task) -> OpGraph:
    """One step of a task: a prediction, or forward, backward and optimizer, as task.mode says.

    The weights of a Hugging Face configuration are never allocated. Raises as `program.build` does, and NotRunnable
    when the model's control flow depends on values that fake tensors do not have.
    """
    built, mode = program.build_fake(task)
    assert built.model is not None  # ONNX tasks were refused
    step = built.step if isinstance(built.step, Step) else None
    call = program.caller(built.model, built.inputs, f"task {task.name}: model.inputs")
    return _record(task.name, mode, built.model, built.inputs, call, step)


def capture(
    module_or_callable: nn.Module | Callable[..., Any],
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor,
    *,
    name: str,
    mode: Mode = "inference",
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] | None = None,
    loss: str | program.Loss | None = None,
) -> OpGraph:
    """One step of a module or a function on `inputs`: by name, in order, or a single tensor.

    mode 'training' runs the forward pass in training mode, the backward pass of `loss` ('mean' of the first output when
    None, 'sum', or a function of outputs and inputs) and, when `optimizer` is named, its update. Modules are copied, so
    parameters, buffers, gradients, hooks and mode stay as they are. Raises UsageError for a function in training mode,
    NotRunnable when control flow depends on values that fake tensors do not have.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    named = _named(inputs)
    batch = program.fake_inputs(named, fake)
    by_name = isinstance(inputs, Mapping)
    if not isinstance(module_or_callable, nn.Module):
        if mode == "training":
            raise UsageError(f"training {name!r} needs a torch.nn.Module with its parameters; got a function")
        return _record(name, fake, None, batch, _calls(module_or_callable, by_name), None)
    model = source.fake_copy(module_or_callable, fake)
    call = _calls(model, by_name)
    if mode == "inference":
        return _record(name, fake, model.eval(), batch, call, None)
    chosen = loss if callable(loss) else program.loss(loss or "mean")
    training = Training(optimizer=optimizer or "sgd")
    with fake:
        step = Step(model.train(), call, batch, program.optimizer(training, model.parameters()), chosen)
    return _record(name, fake, model, batch, call, step, update=optimizer is not None)


def _named(inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    values = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    return {str(i): value for i, value in enumerate(values)}


def _calls(function: Callable[..., Any], by_name: bool) -> Callable[[Mapping[str, Tensor]], Any]:
    if by_name:
        return lambda batch: function(**batch)
    return lambda batch: function(*batch.values())


def _record(
    name: str,
    fake: FakeTensorMode,
    model: nn.Module | None,
    inputs: Mapping[str, Tensor],
    call: Callable[[Mapping[str, Tensor]], Any],
    step: Step | None,
    update: bool = True,
) -> OpGraph:
    recorder = _Recorder(model)
    parameters = list(model.parameters()) if model is not None else []
    recorder.hold("parameter", parameters)
    recorder.hold("buffer", model.buffers() if model is not None else [])
    recorder.hold("input", inputs.values())
    was_collecting = gc.isenabled()
    gc.disable()  # else the moment at which reference cycles are freed would depend on what ran before
    try:
        with torch.random.fork_rng(devices=[]), fake:
            if step is None:
                with torch.no_grad(), recorder.modules(), recorder:
                    outputs = program.flatten(call(inputs))
            else:
                _prime(step.optimizer, parameters)
                with recorder.modules(), recorder:
                    outputs = (step.forward(),)
                    recorder.phase = "backward"
                    outputs[0].backward()
                    recorder.mark("gradient", [p.grad for p in parameters if p.grad is not None])
                    recorder.hold("optimizer_state", _state(step.optimizer))
                    recorder.phase = "optimizer"
                    if update:
                        step.update()
                    else:
                        step.optimizer.zero_grad(set_to_none=True)
    except _NOT_FAKE as error:
        raise NotRunnable(
            f"capture of {name!r} stopped in module {recorder.stopped_in.path or '(root)'!r}: {_reason(error)}. "
            "Choose an implementation with fixed shapes, or feed what it depends on as an integer input, "
            "which capture keeps real"
        ) from error
    finally:
        if was_collecting:
            gc.enable()
    graph = recorder.graph(name, "inference" if step is None else "training", parameters)
    del outputs  # held to here: what a step returns outlives it
    return graph


def _reason(error: Exception) -> str:
    func = getattr(error, "func", None) or (error.args[0] if error.args else error)
    if isinstance(error, DataDependentOutputException):
        return f"{func} asks for the value of a tensor, which decides what runs next"
    if isinstance(error, DynamicOutputShapeException):
        return f"the shape that {func} returns depends on the values in a tensor"
    return f"{func} has no rule for tensors without data"


def _prime(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """One update with zero gradients, not recorded: the steps after it find the optimizer's state in place."""
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _state(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """State of the parameters that got a gradient: one that never does has none in a real run."""
    for parameter, state in optimizer.state.items():
        if parameter.grad is not None:
            yield from (value for value in state.values() if isinstance(value, Tensor))


class _Module(NamedTuple):
    path: str
    type: str


class _Argument(NamedTuple):
    name: str
    is_written: bool


@cache
def _arguments(func: torch._ops.OpOverload) -> tuple[_Argument, ...]:
    return tuple(_Argument(a.name, a.alias_info is not None and a.alias_info.is_write) for a in func._schema.arguments)


@cache
def _is_composite(func: torch._ops.OpOverload) -> bool:
    """Whether the operator only calls others; some, as silu_backward, also have a kernel, and that is what runs."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return has_kernel(func.name(), "CompositeImplicitAutograd") and not has_kernel(func.name(), "CPU")


class _Recorder(TorchDispatchMode):
    """Writes down what passes through the dispatcher. Enter it inside a FakeTensorMode."""

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__()
        self.phase: Phase = "forward"
        self._ops: list[Op] = []
        self._tensors: list[tuple[tuple[int, ...], str, int]] = []
        self._index: dict[tuple[Any, ...], int] = {}  # storage and geometry -> the newest tensor there
        self._storages: dict[int, int] = {}  # id of a living storage object -> its number
        self._watch: dict[int, weakref.ref[Any]] = {}
        self._bytes: list[int] = []
        self._roles: list[Role] = []
        self._born: list[int] = []
        self._freed: list[int | None] = []
        root = _Module("", type(model).__name__ if model is not None else "")
        named = model.named_modules() if model is not None else ()
        self._paths = {id(part): _Module(path, type(part).__name__) for path, part in named}
        self._stack = [root]
        self.stopped_in = root
        self._nodes_from: list[int] = [0]  # autograd nodes numbered from here on were made by the module next to it
        self._made_by: list[_Module] = [root]
        self._owner: dict[int, _Module] = {}  # storage of a parameter -> the module that has it
        for part in model.modules() if model is not None else ():
            for parameter in part.parameters(recurse=False):
                self._owner.setdefault(self._storage(parameter, "parameter"), self._paths[id(part)])

    # Who is running -------------------------------------------------------------------------------------------------

    @property
    def module(self) -> _Module:
        return self._stack[-1]

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Follow which module runs. Global hooks: a module's own hooks would switch off torch's fast paths."""
        before = register_module_forward_pre_hook(self._enter_module)
        after = register_module_forward_hook(self._leave_module, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._paths:
            self._stack.append(self._paths[id(module)])
            self._remember()

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in self._paths:
            self._stack.pop()
            self._remember()

    def _remember(self) -> None:
        self._nodes_from.append(torch._C._autograd._get_sequence_nr())
        self._made_by.append(self.module)

    def _attribution(self, inputs: Sequence[int]) -> _Module:
        """The running module; in the backward pass the one whose forward made the node; for updates the owner."""
        if self.phase == "backward" and len(self._stack) == 1:
            node = torch._C._current_autograd_node()
            if node is None:
                return self._stack[0]
            if (leaf := getattr(node, "variable", None)) is not None:  # a gradient arrives at its parameter
                return self._owner.get(self._storage(leaf), self._stack[0])
            return self._made_by[bisect_right(self._nodes_from, node._sequence_nr()) - 1]
        if self.phase == "optimizer":
            owners = (self._owner.get(self._tensors[i][2]) for i in inputs)
            return next((owner for owner in owners if owner is not None), self._stack[0])
        return self.module

    # Tensors and their memory ---------------------------------------------------------------------------------------

    def hold(self, role: Role, tensors: Iterable[Tensor]) -> None:
        """Tensors that are there before the step."""
        for tensor in tensors:
            for part in _dense_parts(tensor):
                self._roles[self._storage(part, role)] = role
                self._tensor(part, role)

    def mark(self, role: Role, tensors: Iterable[Tensor]) -> None:
        """Say what storages turned out to be for."""
        for tensor in tensors:
            for part in _dense_parts(tensor):
                self._roles[self._storage(part)] = role

    def _storage(self, tensor: Tensor, role: Role = "constant", born: int = -1) -> int:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._storages:
            return self._storages[key]
        number = len(self._bytes)
        self._bytes.append(storage.nbytes())
        self._roles.append(role)
        self._born.append(born)
        self._freed.append(None)
        self._storages[key] = number

        def is_gone(_: object) -> None:
            del self._storages[key], self._watch[key]
            self._freed[number] = len(self._ops)

        self._watch[key] = weakref.ref(storage, is_gone)
        return number

    def _tensor(self, tensor: Tensor, role: Role = "constant", born: int = -1, is_new: bool = False) -> int:
        storage = self._storage(tensor, role, born)
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        key = (storage, shape, tensor.stride(), tensor.storage_offset(), dtype)
        if is_new or key not in self._index:
            self._index[key] = len(self._tensors)
            self._tensors.append((shape, dtype, storage))
        return self._index[key]

    # Operators ------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _SILENT:
            return func(*args, **kwargs)
        if _is_composite(func):  # reaches us whole only inside torch.inference_mode
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        schema = _arguments(func)
        values = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
        taken = [t for value in values.values() for t in _tensors(value)]
        inputs = tuple(self._tensor(part) for t in taken for part in _dense_parts(t))
        try:
            result = _run(func, args, kwargs, taken)
        except _NOT_FAKE:
            self.stopped_in = self._attribution(inputs)
            raise
        written = frozenset(a.name for a in schema if a.is_written and a.name in values)
        changed = [t for name in written for t in _tensors(values[name])]
        made = list(_tensors(result)) or changed
        changed_ids = {id(t) for t in changed}
        at = len(self._ops)
        known = {id(t) for t in taken} - changed_ids
        outputs = tuple(
            self._tensor(part, "activation", at, is_new=id(t) not in known) for t in made for part in _dense_parts(t)
        )
        operands = {name: _operand(value) for name, value in values.items()}
        call = Call(
            f"{func.namespace}.{func._opname}",
            operands,
            tuple(_as_operand(t) for t in made if id(t) not in changed_ids),
            written,
        )
        price = cost(call)
        module = self._attribution(inputs)
        self._ops.append(
            Op(
                name=str(func),
                module=module.path,
                module_type=module.type,
                phase=self.phase,
                category=price.category,
                inputs=inputs,
                outputs=outputs,
                flop=price.flop,
                read_bytes=price.read_bytes,
                written_bytes=price.written_bytes,
                attributes=attributes(values),
            )
        )
        return result

    def graph(self, name: str, mode: Mode, parameters: Sequence[Tensor]) -> OpGraph:
        roles = self._roles
        return OpGraph(
            name=name,
            mode=mode,
            ops=tuple(self._ops),
            tensors=tuple(TensorInfo(shape, dtype, s, roles[s]) for shape, dtype, s in self._tensors),
            parameters=sum(p.numel() for p in parameters),
            storages=tuple(Storage(*row) for row in zip(self._bytes, roles, self._born, self._freed, strict=True)),
        )


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], taken: Sequence[Tensor]) -> Any:
    """The operator on fake tensors; on real ones (integer inputs and what is computed from them) with real values."""
    if taken and not any(isinstance(t, FakeTensor) for t in taken):
        with unset_fake_temporarily():
            return func(*args, **kwargs)
    if any(t.layout is not torch.strided and t._is_view() for t in taken):
        args, kwargs = tree_map_only(Tensor, _rebuilt, (args, kwargs))
    if func is torch.ops.aten._grouped_mm.default:  # the fake kernel insists on bfloat16, as CUDA's does; the CPU's not
        return args[0].new_empty(_grouped_shape(*args, **kwargs))
    return func(*args, **kwargs)


def _grouped_shape(a: Tensor, b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> tuple[int, ...]:
    """Rows in groups (2-D x 3-D), columns in groups (3-D x 2-D), or the inner axis in groups (2-D x 2-D)."""
    if a.dim() == 2 and b.dim() == 2:
        assert offs is not None
        return (offs.shape[0], a.shape[0], b.shape[1])
    if a.dim() == 3 and b.dim() == 3:
        return (a.shape[0], a.shape[1], b.shape[2])
    return (a.shape[-2], b.shape[-1])


def _rebuilt(sparse: Tensor) -> Tensor:
    """The same indices and values as a tensor of its own: fake tensors cannot be made from views of sparse ones."""
    if sparse.layout is torch.strided:
        return sparse
    *indices, values = _dense_parts(sparse)
    with unset_fake_temporarily():
        if sparse.layout is torch.sparse_coo:
            return torch.sparse_coo_tensor(
                indices[0], values, sparse.shape, is_coalesced=sparse.is_coalesced(), check_invariants=False
            )
        return torch.sparse_compressed_tensor(
            indices[0], indices[1], values, sparse.shape, layout=sparse.layout, check_invariants=False
        )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensor, or the index and value tensors that a sparse one consists of."""
    if tensor.layout is torch.strided:
        return (tensor,)
    if isinstance(tensor, FakeTensor):
        raise NotRunnable(
            f"capture met a sparse tensor that is computed from values (shape {tuple(tensor.shape)}, {tensor.layout}); "
            "how many entries it has is not known without data. Use dense gradients (sparse=False)"
        )
    with unset_fake_temporarily():
        if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            return (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            return (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
        if tensor.layout is torch.sparse_coo:
            return (tensor._indices(), tensor._values())
    raise NotRunnable(f"capture knows no tensors of layout {tensor.layout}; it knows strided and sparse ones")


def _as_operand(tensor: Tensor) -> Operand:
    item = tensor.element_size() if tensor.layout is torch.strided else tensor.dtype.itemsize
    if tensor.layout is not torch.strided:
        parts = _dense_parts(tensor)
        stored = sum(part.numel() * part.element_size() for part in parts)
        return Operand(tuple(tensor.shape), stored, item, nonzeros=parts[-1].numel())
    shape = tuple(tensor.shape)
    distinct = item * math.prod(n for n, stride in zip(shape, tensor.stride(), strict=True) if stride or not n)
    return Operand(shape, min(distinct, tensor.untyped_storage().nbytes()), item)


def _operand(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _as_operand(value)
    if isinstance(value, list | tuple):
        return [_operand(item) for item in value]
    return value


def attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are no tensors and not None, as plain values."""
    return {
        name: _plain(value)
        for name, value in values.items()
        if value is not None and name not in _DROPPED and not any(True for _ in _tensors(value))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no infinity
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value).removeprefix("torch.")
