"""Run parts of a step alone: operators recorded from one real step, made again from their shapes, strides and dtypes.

Called through `core.process` by `measure.unique`. Nothing of the step is kept but what each call was given: floating
numbers are drawn anew (positive, of the size of one, so that nothing overflows or becomes denormal), integers are the
real ones, because they say which rows are looked up.
"""

import functools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from gnomon.core.errors import NotRunnable
from gnomon.core.process import JSON, progress
from gnomon.core.records import from_json, to_json
from gnomon.devices.host import host
from gnomon.measure.clock import Clock
from gnomon.measure.timing import Candidate, Sample, quiet_collector, time_call
from gnomon.measure.unique import AS_IS, Composition, UniqueOperator, UniqueOperators, operator_digest
from gnomon.spec.task import Task
from gnomon.workload import program as workload
from gnomon.workload.capture import attributes

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_ROUNDS, _LEAST_ROUNDS = 9, 3
_SHORTEST_S = 0.01  # of a piece's share of the budget
_WARMUP_NS, _BLOCK_NS = 20e6, 1e6
_MOST_COPIES, _MOST_COPIES_BYTES, _SMALL_WEIGHTS_BYTES = 32, 2**28, 2**16
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "linear"}
_CONVOLUTIONS = {"convolution"}


class Spec(NamedTuple):
    """A tensor that a recorded call was given. values: the real ones of integers and booleans."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_weight: bool
    values: Tensor | None

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    @property
    def elements(self) -> int:
        """Of the memory that the strides span."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) if 0 not in self.shape else 0


class Made(NamedTuple):
    """A tensor that an earlier call returned."""

    call: int
    output: int


@dataclass(frozen=True)
class Recorded:
    """One operator call. inputs: its tensors in order, each with who made it, None for what was there before.

    args, kwargs: as given, with the number of the input in the place of each tensor (a `_Slot`).
    """

    func: Any
    args: Any
    kwargs: Any
    inputs: tuple[tuple[Spec, Made | None], ...]
    attributes: Mapping[str, Any]
    writes: bool

    @property
    def name(self) -> str:
        return str(self.func)

    @property
    def base(self) -> str:
        return self.func._opname.rstrip("_")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(spec.shape for spec, _ in self.inputs)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(str(spec.dtype).removeprefix("torch.") for spec, _ in self.inputs)

    @property
    def digest(self) -> str:
        return operator_digest(self.name, self.shapes, self.dtypes, self.attributes)


class _Slot(NamedTuple):
    number: int


class Recorder(TorchDispatchMode):
    """Writes down every operator below autograd that runs inside it. weights: storages of parameters and buffers."""

    def __init__(self, weights: frozenset[int]) -> None:
        super().__init__()
        self.calls: list[Recorded] = []
        self._weights = weights
        self._made: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # reaches us whole only inside torch.inference_mode
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        inputs: list[tuple[Spec, Made | None]] = []
        held_args, held_kwargs = self._held(args, inputs), self._held(kwargs, inputs)
        schema = func._schema.arguments
        values = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema)
        result = func(*args, **kwargs)
        at = len(self.calls)
        self.calls.append(Recorded(func, held_args, held_kwargs, tuple(inputs), attributes(values), writes))
        for i, tensor in enumerate(_flat(result)):
            self._made[tensor] = Made(at, i)
        return result

    def _held(self, value: Any, inputs: list[tuple[Spec, Made | None]]) -> Any:
        if isinstance(value, Tensor):
            if value.layout is not torch.strided:
                raise NotRunnable(
                    f"a step takes a tensor of layout {value.layout}, which cannot be made from a shape; operators of "
                    "sparse tensors are not run alone"
                )
            inputs.append((self._spec(value), self._made.get(value)))
            return _Slot(len(inputs) - 1)
        if isinstance(value, list | tuple):
            return type(value)(self._held(item, inputs) for item in value)
        if isinstance(value, dict):
            return {key: self._held(item, inputs) for key, item in value.items()}
        return value

    def _spec(self, tensor: Tensor) -> Spec:
        values = None if tensor.is_floating_point() or tensor.is_complex() else tensor.detach().clone()
        is_weight = tensor.untyped_storage().data_ptr() in self._weights
        return Spec(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, is_weight, values)


@functools.cache
def _is_composite(func: Any) -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return has_kernel(func.name(), _COMPOSITE) and not has_kernel(func.name(), "CPU")


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)


@dataclass(frozen=True)
class Piece:
    """Consecutive calls of a step. first: the number of the first of them in the step."""

    calls: tuple[Recorded, ...]
    first: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two pieces the same: operators, shapes, strides, dtypes, attributes and how they are wired."""
        return tuple(
            (
                call.name,
                repr(sorted(call.attributes.items())),
                tuple((spec[:4], self._inside(made)) for spec, made in call.inputs),
            )
            for call in self.calls
        )

    def _inside(self, made: Made | None) -> tuple[int, int] | None:
        if made is None or not self.first <= made.call < self.first + len(self.calls):
            return None
        return made.call - self.first, made.output

    @property
    def weight_bytes(self) -> int:
        return sum(s.bytes for call in self.calls for s, made in call.inputs if s.is_weight and not self._inside(made))

    def step(self, copies: int, change: Callable[[Tensor], Tensor], device: str) -> Callable[[], Any]:
        """A function that runs the piece; each call of it takes the next of `copies` sets of inputs.

        change: applied to every floating input that comes from outside. A single set is enough where all weights of
        the model stay in the cache anyway; more sets make each call find its weights as cold as the step finds them.
        """
        writes = any(call.writes for call in self.calls)
        given = [
            [None if self._inside(made) else change(_made_up(spec, device, writes)) for spec, made in call.inputs]
            for call in self.calls
        ]
        plans = [[self._bound(i, given[i], is_first=copy == 0) for i in range(len(given))] for copy in range(copies)]
        used = {inside[0] for call in self.calls for _, made in call.inputs if (inside := self._inside(made))}
        waits = [any(one is None for one in tensors) for tensors in given]
        at = 0

        def run() -> None:  # as little Python as can be: it is inside the timer
            nonlocal at
            plan = plans[at]
            at = at + 1 if at + 1 < copies else 0
            results: dict[int, Any] = {}
            for i, (func, args, kwargs) in enumerate(plan):
                if waits[i]:
                    args, kwargs = _filled(args, results), _filled(kwargs, results)
                result = func(*args, **kwargs)
                if i in used:
                    results[i] = result if type(result) is Tensor else list(_flat(result))

        if len(self.calls) > 1 or copies > 1:
            return run
        return functools.partial(plans[0][0][0], *plans[0][0][1], **plans[0][0][2])

    def _bound(self, index: int, given: Sequence[Tensor | None], is_first: bool) -> tuple[Any, Any, Any]:
        """A call with its inputs in place; all copies but the first have weights of their own."""
        call = self.calls[index]

        def tensor(slot: _Slot) -> Any:
            spec, made = call.inputs[slot.number]
            mine = given[slot.number]
            if mine is None:
                inside = self._inside(made)
                assert inside is not None
                return _Late(*inside)
            return mine if is_first or not spec.is_weight else mine.clone()

        return call.func, _replaced(call.args, tensor), _replaced(call.kwargs, tensor)


class _Late(NamedTuple):
    """A tensor that a call of the same piece will have returned."""

    call: int
    output: int


def _replaced(value: Any, tensor: Callable[[_Slot], Any]) -> Any:
    if isinstance(value, _Slot):
        return tensor(value)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, tensor) for item in value)
    if isinstance(value, dict):
        return {key: _replaced(item, tensor) for key, item in value.items()}
    return value


def _filled(value: Any, results: Mapping[int, Any]) -> Any:
    kind = type(value)
    if kind is _Late:
        result = results[value.call]
        return result if type(result) is Tensor else result[value.output]
    if kind is tuple or kind is list:
        return kind(_filled(item, results) for item in value)
    if kind is dict:
        return {key: _filled(item, results) for key, item in value.items()} if value else value
    return value


def _made_up(spec: Spec, device: str, steady: bool) -> Tensor:
    """A tensor like the recorded one. steady: all ones, for operators that write in place and run again and again."""
    if spec.values is not None:
        return spec.values.clone().to(device)
    memory = torch.ones(spec.elements, dtype=spec.dtype, device=device)
    if not steady and spec.dtype.is_floating_point:
        memory.uniform_(0.5, 1.5)
    return memory.as_strided(spec.shape, spec.stride)


def record_step(program: workload.Program) -> list[Recorded]:
    """The operators of one step, in order. Raises NotRunnable for sparse tensors and for engines other than torch."""
    if program.model is None:
        raise NotRunnable("an engine other than torch runs the model, so its operators cannot be run alone")
    parts = [*program.model.parameters(), *program.model.buffers()]
    recorder = Recorder(frozenset(part.untyped_storage().data_ptr() for part in parts if part.layout is torch.strided))
    with recorder:
        program.step()
    return recorder.calls


def pieces(calls: Sequence[Recorded], length: int) -> list[Piece]:
    """The calls cut into runs of `length`; the last may be shorter."""
    return [Piece(tuple(calls[i : i + length]), i) for i in range(0, len(calls), length)]


def unique(arguments: JSON) -> JSON:
    """The work of the child process. arguments: task, lengths, budget_s. Returns a `UniqueOperators` as JSON."""
    begin = time.monotonic()
    task: Task = from_json(arguments["task"], Task)
    torch.set_num_threads(task.threads)
    clock, on_cpu = Clock(), task.device == "cpu"
    progress("building the model")
    program = workload.build(task, device=task.device)
    program.step()
    calls = record_step(program)
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in _parts(program)}
    timer = Timer(clock, task.device, float(sum(weights.values())), clock_is_cpu=on_cpu and task.threads == 1)
    compositions: list[Composition] = []
    operators: tuple[UniqueOperator, ...] = ()
    for length in arguments["lengths"]:
        progress(f"pieces of {length} operators")
        cut = pieces(calls, length)
        with (
            quiet_collector()
        ):  # once for all pieces: to look through all that torch has imported takes longer than most
            measured, composition = compose(program.step, cut, length, timer, arguments["budget_s"])
            compositions.append(composition)
            if length == 1:
                operators = _operators(calls, measured, timer)
    return to_json(
        UniqueOperators(
            task=task.name,
            task_digest=task.digest,
            mode=task.mode,
            dims=dict(task.dims),
            machine=host().cpu if on_cpu else torch.cuda.get_device_name(task.device),
            threads=task.threads,
            versions={"torch": str(torch.__version__)},
            clock="cpu" if timer.clock_is_cpu else "wall",
            step_s=compositions[0].step_s,
            operators=operators,
            compositions=tuple(compositions),
            weights_bytes=timer.weights_bytes,
            elapsed_s=time.monotonic() - begin,
        )
    )


def _parts(program: workload.Program) -> list[Tensor]:
    assert program.model is not None
    return [t for t in (*program.model.parameters(), *program.model.buffers()) if t.layout is torch.strided]


@dataclass(frozen=True)
class Timer:
    """Times functions in this process. weights_bytes: of the whole model, which decides how cold a piece's weights are.

    clock_is_cpu: CPU time is what counts (one thread on a CPU), else wall time.
    """

    clock: Clock
    device: str
    weights_bytes: float
    clock_is_cpu: bool

    def one(self, step: Callable[[], Any]) -> float:
        """Seconds of a single call. Raises what the call raises."""
        return self._median([time_call(step, self.clock, synchronize=self._synchronize)])

    def piece(self, piece: Piece, budget_s: float) -> float:
        """Median seconds of a piece as it runs in the model. Raises what its operators raise."""
        return self.variants(piece, {AS_IS: (_same, nullcontext)}, budget_s)[AS_IS]

    def variants(
        self,
        piece: Piece,
        ways: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[], AbstractContextManager[Any]]]],
        budget_s: float,
    ) -> dict[str, float]:
        """Median seconds of a piece each way, interleaved; a way that cannot run it is left out.

        ways: name -> (what is done to its inputs, what is switched around the call). Raises what the first raises.
        """
        copies = self._copies(piece)
        candidates: list[Candidate] = []
        for name, (change, scope) in ways.items():
            try:
                with torch.inference_mode():
                    step = piece.step(copies, change, self.device)
                    with scope():
                        step()
            except Exception:
                if not candidates:
                    raise
                continue
            candidates.append(Candidate(name, step, scope=_both(scope)))
        samples = self._timed(candidates, budget_s)
        return {c.name: self._median(s) for c, s in zip(candidates, samples, strict=True)}

    def _copies(self, piece: Piece) -> int:
        mine = piece.weight_bytes
        if mine < _SMALL_WEIGHTS_BYTES:
            return 1
        return min(max(round(min(self.weights_bytes, _MOST_COPIES_BYTES) / mine), 1), _MOST_COPIES)

    def _timed(self, candidates: list[Candidate], budget_s: float) -> list[list[Sample]]:
        """Each candidate warmed up, then in blocks of a millisecond at least, which hide the cost of starting one."""
        share_ns = budget_s / len(candidates) * 1e9
        ready = []
        for one in candidates:
            with one.scope():
                start, calls = self.clock.wall_ns(), 0
                while calls < 2 or self.clock.wall_ns() - start < min(share_ns / 3, _WARMUP_NS):
                    one.step()
                    calls += 1
                repeat = round(_BLOCK_NS * calls / (self.clock.wall_ns() - start))
            ready.append(one._replace(repeat=max(repeat, 1)))
        samples: list[list[Sample]] = [[] for _ in ready]
        order, rng, start = list(range(len(ready))), random.Random(0), self.clock.wall_ns()
        for round_ in range(_ROUNDS):
            if round_ >= _LEAST_ROUNDS and self.clock.wall_ns() - start > budget_s / 2 * 1e9:
                break
            rng.shuffle(order)
            for i in order:
                one = ready[i]
                with one.scope():
                    samples[i].append(time_call(one.step, self.clock, one.repeat, self._synchronize))
        return samples

    @property
    def _synchronize(self) -> Callable[[], None] | None:
        return None if self.device == "cpu" else lambda: torch.cuda.synchronize(self.device)

    def _median(self, samples: Sequence[Sample]) -> float:
        times = sorted(sample.cpu_ns if self.clock_is_cpu else sample.wall_ns for sample in samples)
        return (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2 * 1e-9


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _both(scope: Callable[[], AbstractContextManager[Any]]) -> Callable[[], AbstractContextManager[Any]]:
    @contextmanager
    def entered() -> Iterator[None]:
        with torch.inference_mode(), scope():
            yield

    return entered


def compose(
    step: Callable[[], Any], cut: Sequence[Piece], length: int, timer: Timer, budget_s: float
) -> tuple[dict[tuple[Any, ...], float | str], Composition]:
    """Each unique piece timed once: key -> seconds, or why it could not run; and what they add up to.

    The whole step is timed between the pieces, so that what the machine does meanwhile is in both.
    """
    counts = Counter(piece.key for piece in cut)
    kinds = {piece.key: piece for piece in cut}
    share = max(budget_s / len(kinds), _SHORTEST_S)
    measured: dict[tuple[Any, ...], float | str] = {}
    whole = [timer.one(step) for _ in range(3)][1:]
    every = max(1, round(len(kinds) * whole[-1] / budget_s))
    for i, (key, piece) in enumerate(kinds.items()):
        try:
            measured[key] = timer.piece(piece, share)
        except Exception as error:  # an operator that wants more than shapes: its reason is the result
            names = ", ".join(dict.fromkeys(call.name for call in piece.calls))
            measured[key] = f"{names}: {type(error).__name__}: {str(error).strip()[:200]}"
        if i % every == 0:
            step()  # what ran alone has filled the caches
            whole.append(timer.one(step))
    failures = tuple(value for value in measured.values() if isinstance(value, str))
    times = {key: value for key, value in measured.items() if isinstance(value, float)}
    predicted = sum(counts[key] * seconds for key, seconds in times.items()) if not failures else None
    step_s = statistics.median(whole)
    return measured, Composition(length, len(cut), len(kinds), predicted, step_s, sum(times.values()), failures)


def _operators(
    calls: Sequence[Recorded], measured: Mapping[tuple[Any, ...], float | str], timer: Timer
) -> tuple[UniqueOperator, ...]:
    """The unique operators; those that multiply are also timed with other algorithms and in bfloat16."""
    groups: dict[str, list[tuple[Recorded, float | str]]] = {}
    for i, call in enumerate(calls):
        groups.setdefault(call.digest, []).append((call, measured[Piece((call,), i).key]))
    found = []
    for digest, same in groups.items():
        call = same[0][0]
        times = [seconds for _, seconds in same if isinstance(seconds, float)]
        why = next((reason for _, reason in same if isinstance(reason, str)), None)
        known = {AS_IS: sum(times) / len(times)} if times else {}  # of one digest, but with other strides: their mean
        other: dict[str, float] = {}
        if times and call.base in _PRODUCTS:
            known, other = _ways(Piece((call,), 0), call, known, timer)
        found.append(
            UniqueOperator(
                digest, call.name, call.shapes, call.dtypes, call.attributes, len(same), known, other,
                why if not times else None,
            )
        )  # fmt: skip
    return tuple(found)


def _ways(
    piece: Piece, call: Recorded, known: Mapping[str, float], timer: Timer
) -> tuple[dict[str, float], dict[str, float]]:
    """Times of other algorithms for the same result, and of other dtypes; ratios to the way of the model are kept.

    All ways are timed interleaved, so their ratios hold; the time of the model's way stays the one known.
    """
    ways: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[], AbstractContextManager[Any]]]] = {
        AS_IS: (_same, nullcontext)
    }
    alone = Piece((Recorded(call.func, call.args, call.kwargs, tuple((s, None) for s, _ in call.inputs),
                            call.attributes, call.writes),), piece.first)  # fmt: skip
    if timer.device == "cpu" and torch.backends.mkldnn.is_available() and call.base in _CONVOLUTIONS:
        ways["without oneDNN"] = (_same, lambda: torch.backends.mkldnn.flags(enabled=False))
    if call.base in _CONVOLUTIONS:
        ways["channels last"] = (_channels_last, nullcontext)
    ways["contiguous inputs"] = (torch.Tensor.contiguous, nullcontext)
    if any(spec.dtype is torch.float32 for spec, _ in call.inputs):
        ways["bfloat16"] = (_bfloat16, nullcontext)
    timed = timer.variants(alone, ways, 0.2)
    scale = known[AS_IS] / timed[AS_IS] if timed[AS_IS] > 0 else 1.0
    other = {"bfloat16": timed.pop("bfloat16") * scale} if "bfloat16" in timed else {}
    return {name: seconds * scale for name, seconds in timed.items()}, other


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _bfloat16(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.dtype is torch.float32 else tensor
