"""OpGraph: the operators that one step of a model runs, with shapes, cost and who made what."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gnomon.core.records import record

Phase = Literal["forward", "backward", "optimizer"]
Role = Literal["parameter", "buffer", "input", "activation", "gradient", "optimizer_state", "constant"]
Category = Literal[
    "matmul", "convolution", "attention", "normalization", "softmax", "elementwise", "reduction", "gather",
    "copy", "view", "random", "optimizer", "pooling", "sort", "collective", "unknown",
]  # fmt: skip

ITEM_BYTES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "complex64": 8,
    "complex128": 16, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor value: `storage` is equal for tensors that share memory (views and in-place results).

    An in-place operator makes a new value in the same storage, so every value has one producer at most.
    role: what the storage is for; 'gradient' is a parameter's gradient, other gradients are activations.
    """

    shape: tuple[int, ...]
    dtype: str
    storage: int
    role: Role

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Op:
    """One operator call.

    name: 'aten.mm.default'. module: path in the model, '' for the root. module_type: class of that module.
    inputs, outputs: indices into the graph's tensors. attributes: the arguments that are no tensors.
    flop: floating-point operations (a multiply-add counts 2), None when no rule knows this operator.
    read_bytes, written_bytes: the least traffic to memory: each input read once, each output written once.
    """

    name: str
    module: str
    module_type: str
    phase: Phase
    category: Category
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    flop: float | None
    read_bytes: float
    written_bytes: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def moved_bytes(self) -> float:
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True)
class Storage:
    """One block of memory, shared by the tensors whose `storage` is its index in the graph's storages.

    born: index of the operator that allocated it, -1 when it was there before the step. freed: number of operators
    that had run when it was given back (it is held while operator i runs if born <= i < freed), None when it outlives
    the step. These are observed, not derived: Python's references and autograd's saved tensors decide them.
    """

    bytes: int
    role: Role
    born: int
    freed: int | None


@record("opgraph", 1)
@dataclass(frozen=True, slots=True)
class OpGraph:
    """The operators of one step in the order in which they ran. mode: 'inference' or 'training' (with optimizer).

    parameters: number of trained and frozen parameter elements. storages: empty in a graph that was not captured.
    """

    name: str
    mode: Literal["inference", "training"]
    ops: tuple[Op, ...]
    tensors: tuple[TensorInfo, ...]
    parameters: int
    storages: tuple[Storage, ...] = ()

    @property
    def flop(self) -> float:
        """Floating-point operations of all operators that a rule knows."""
        return math.fsum(op.flop or 0.0 for op in self.ops)

    @property
    def moved_bytes(self) -> float:
        return math.fsum(op.moved_bytes for op in self.ops)

    @property
    def unknown(self) -> dict[str, int]:
        """Operators without a cost rule and how often each occurs; never silently free."""
        return dict(Counter(op.name for op in self.ops if op.flop is None))

    @property
    def digest(self) -> str:
        """Identity of the computation: the name of the graph and the life of its storages do not enter."""
        fields = [[getattr(op, name) for name in Op.__dataclass_fields__] for op in self.ops]
        tensors = [[t.shape, t.dtype, t.storage, t.role] for t in self.tensors]
        text = json.dumps([self.mode, self.parameters, tensors, fields], sort_keys=True)  # ten times to_json's speed
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def producers(self) -> dict[int, int]:
        """Tensor index -> index of the operator that made it; tensors that were there before the step are not in it."""
        return {tensor: i for i, op in enumerate(self.ops) for tensor in op.outputs}

    @property
    def consumers(self) -> dict[int, tuple[int, ...]]:
        """Tensor index -> indices of the operators that take it, in order."""
        found: dict[int, list[int]] = {}
        for i, op in enumerate(self.ops):
            for tensor in dict.fromkeys(op.inputs):
                found.setdefault(tensor, []).append(i)
        return {tensor: tuple(users) for tensor, users in found.items()}

    def shapes(self, indices: Iterable[int]) -> list[tuple[int, ...]]:
        return [self.tensors[i].shape for i in indices]
