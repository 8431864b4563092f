"""Operator graphs of a pack (NeuSight's form: one transformer layer traced, shapes on every node) as graphs of ours.

What a node costs is taken from its shapes, not from what the pack's authors counted for it: operands that are broadcast
are read at their own size, dropout is free at inference, a copy is a copy only where the order in memory changes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from gnomon.core.errors import UsageError
from gnomon.forecast.pack.fp32 import POW_FLOP
from gnomon.forecast.pack.table import read_table
from gnomon.workload.graph import Category, Op, OpGraph, Phase, TensorInfo

Shape = tuple[int, ...]
_LAYERS = ("num_layers", "num_hidden_layers", "n_layer", "num_layer")
# nodes that move nothing, by the name of the function or method that they call
_FREE = (
    "size", "getattr", "eq", "transpose", "view", "permute", "split", "unsqueeze", "squeeze", "expand", "t", "getitem",
    "to", "float", "type", "output", "tensor", "count", "chunk", "finfo", "is", "arange", "log",
)  # fmt: skip
_NO_GRADIENT = ("size", "getattr", "eq")
_REORDERS = ("transpose", "permute")
_ACTIVATIONS = ("relu", "gelu", "tanh")


class Key(NamedTuple):
    """Which run of which model: mode is 'inf' or 'train', option '' or 'fusion'."""

    model: str
    mode: str
    seqlen: int
    batch: int
    option: str


@dataclass(frozen=True, slots=True)
class Traced:
    """The forward and the backward part of one step; inference has no backward part."""

    key: Key
    forward: OpGraph
    backward: OpGraph | None

    @property
    def whole(self) -> OpGraph:
        return self.forward if self.backward is None else joined(self.forward, self.backward)


def read(path: Path, models: Path | None = None) -> dict[Key, Traced]:
    """Every graph of an `opgraphs.parquet`, its layer repeated as often as `models.json` beside it says.

    Raises UsageError naming file and model when a graph has a layer and nobody says how many, or a shape is not one.
    """
    columns = ["model", "mode", "seqlen", "batch", "option", "name", "op", "fw_ops", "bw_ops", "acc_ops", "prev",
               "next", "input_shapes", "output_shape", "section"]  # fmt: skip
    table = read_table(path, columns)
    layers = _layer_counts(models or path.parent / "models.json")
    nodes: dict[Key, list[dict[str, str]]] = {}
    for values in zip(*(table[name] for name in columns), strict=True):
        node = dict(zip(columns, values, strict=True))
        key = Key(node["model"], node["mode"], int(node["seqlen"]), int(node["batch"]), node["option"] or "")
        nodes.setdefault(key, []).append(node)
    traced = {}
    for key, mine in nodes.items():
        repeat = layers.get(key.model)
        if repeat is None and any(node["section"] == "layer" for node in mine):
            known = ", ".join(sorted(layers)) or "none"
            raise UsageError(
                f"{path}: {key.model}: no layer count; wanted one of {', '.join(_LAYERS)} under {key.model!r} in "
                f"models.json (it has {known}). Name another file with --models"
            )
        try:
            traced[key] = _trace(key, mine, repeat or 1)
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path}: {'/'.join(map(str, key))}: a shape cannot be read: {error}") from None
    return traced


def _layer_counts(path: Path) -> dict[str, int]:
    try:
        models = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}. Wanted model configurations by name") from None
    counts = {}
    for name, config in models.items():
        count = next((config[key] for key in _LAYERS if isinstance(config.get(key), int)), None)
        if count is not None:
            counts[name] = count
    return counts


def _trace(key: Key, nodes: Sequence[Mapping[str, str]], repeat: int) -> Traced:
    forward, backward = _Builder(key, "forward"), _Builder(key, "backward")
    by_name = {node["name"]: node for node in nodes}
    for section in ("whole", "prologue", "layer", "epilogue"):
        mine = [node for node in nodes if node["section"] == section]
        for _ in range(repeat if section == "layer" else 1):
            for node in mine:
                forward.run(node, by_name)
                if key.mode == "train":
                    backward.reverse(node, by_name)
    mode: Literal["inference", "training"] = "training" if key.mode == "train" else "inference"
    return Traced(key, forward.graph(mode), backward.graph(mode) if key.mode == "train" else None)


class _Builder:
    """Appends operators with tensors of their own; the graphs of a pack say shapes, not which tensor is which."""

    def __init__(self, key: Key, phase: Phase) -> None:
        self._key, self._phase = key, phase
        self._ops: list[Op] = []
        self._tensors: list[TensorInfo] = []

    def graph(self, mode: Literal["inference", "training"]) -> OpGraph:
        return OpGraph("/".join(map(str, self._key)), mode, tuple(self._ops), tuple(self._tensors), parameters=0)

    def run(self, node: Mapping[str, str], by_name: Mapping[str, Mapping[str, str]]) -> None:
        """The forward operator of a node."""
        kinds = [(kind, dims) for kind, dims in json.loads(node["fw_ops"])]
        inputs = [tuple(shape) for shape in json.loads(node["input_shapes"])]
        output = tuple(json.loads(node["output_shape"]))
        what = node["op"].removeprefix("VEC")
        function = _function(node)
        names = dict(kinds)
        if "Linear" in names or "BMM" in names:
            self.products(kinds)
        elif node["op"] == "fused":
            if kinds:
                self._fused([kind.removeprefix("VEC") for kind, _ in kinds], inputs, output)
        elif what in ("softmax", "ln"):
            self._rows(what, names["VEC" + what], passes=2)
        elif node["op"] in ("dropout",) or function == "dropout" or node["name"].endswith("dropout"):
            if self._key.mode == "train":
                self._stream("native_dropout", [output], [output], extra=math.prod(output))
        elif node["op"] == "EMBEDDING" or (what == "misc" and "embedding" in node["name"] and len(output) == 3):
            self._stream("embedding", [output], [output], category="gather")
        elif what == "where":
            self._stream("where", inputs[1:], [output], extra=math.prod(inputs[0]))
        elif what in ("contiguous", "misc") and function in ("contiguous", "reshape"):
            source = json.loads(node["prev"])
            if any(_function(by_name.get(name)) in _REORDERS for name in source):
                self._stream("clone", [output], [output], category="copy")
        elif what == "misc" and (function in _FREE or not inputs or math.prod(output) <= 1):
            pass
        elif what not in ("getitem", "Weight", "count", "output"):
            self._stream(what if what != "misc" else function, inputs, [output])

    def reverse(self, node: Mapping[str, str], by_name: Mapping[str, Mapping[str, str]]) -> None:
        """The backward operators of a node, and the addition of gradients where its output was used more than once."""
        output = tuple(json.loads(node["output_shape"]))
        kinds = [(kind, dims) for kind, dims in json.loads(node["bw_ops"])]
        what = node["op"].removeprefix("VEC")
        names = dict(kinds)
        users = [name for name in json.loads(node["next"]) if _function(by_name.get(name)) not in _NO_GRADIENT]
        for _ in range(len(users) - 1 if what not in ("misc", "getitem") else 0):
            self._stream("add", [output, output], [output])
        if "Linear" in names or "BMM" in names:
            self.products(kinds)
        elif what == "softmax":
            self._rows("softmax", [math.prod(output) // output[-1], output[-1]], passes=3)
        elif what == "ln":
            self._rows(
                "ln", [math.prod(output) // output[-1], output[-1]], passes=5
            )  # the gradient of the weights reads both operands again
        elif what == "dropout":
            self._stream("native_dropout_backward", [output], [output], extra=math.prod(output))
        elif what in _ACTIVATIONS:
            self._stream(f"{what}_backward", [output, output], [output])
        elif what == "EMBEDDING":
            weight = [tuple(dims[0]) for kind, dims in kinds if kind == "MEM"][:1]
            self._stream("embedding_dense_backward", weight, weight, category="gather")
        elif what == "where":
            self._stream("where", [output], [output], extra=math.prod(output))
        elif what in ("add", "addu"):
            pass  # the gradient is handed on
        elif what in ("mul", "div") and any(math.prod(shape) == 1 for shape in json.loads(node["input_shapes"])):
            self._stream(what + "u", [output], [output])  # by a number that needs no gradient
        elif what == "misc" and _function(node) in ("max", "min") and math.prod(output) > 1:
            self._extremum(output)
        elif what not in ("misc", "getitem", "contiguous"):
            for kind, dims in kinds:
                if kind.startswith("VEC"):
                    operands = 2 if kind in ("VECmul", "VECdiv", "VECadd") else 1
                    self._stream(kind.removeprefix("VEC"), [tuple(dims)] * operands, [tuple(dims)])
        for _, dims in json.loads(node["acc_ops"]):
            self._stream("add", [tuple(dims)] * 2, [tuple(dims)])

    def products(self, kinds: Sequence[tuple[str, list[int]]]) -> None:
        for kind, dims in kinds:
            if kind not in ("Linear", "BMM"):
                continue
            batch, m, k, n = (1, *dims) if kind == "Linear" else dims  # the pack puts the contraction in the middle
            lead = () if kind == "Linear" else (batch,)
            shapes = [(*lead, m, k), (*lead, k, n), (*lead, m, n)]
            name = "aten.mm.default" if kind == "Linear" else "aten.bmm.default"
            self._add(name, "matmul", shapes[:2], shapes[2:], 2.0 * batch * m * k * n)

    def _extremum(self, shape: Shape) -> None:
        """Backward of max(x, number): who is equal shares the gradient, who is smaller gets none; five passes."""
        elements = math.prod(shape)
        for name, operands, mask in (("eq", 0, 1), ("div", 1, 0), ("where", 2, 1), ("lt", 0, 1), ("masked_fill", 1, 1)):
            if operands:
                self._stream(name, [shape] * operands, [shape], extra=mask * elements)
            else:
                self._stream(name, [shape], [], extra=mask * elements)

    def _rows(self, what: str, dims: Sequence[int], passes: int) -> None:
        rows, columns = dims
        shape = (rows, columns)
        name = {"softmax": "aten._softmax.default", "ln": "aten.native_layer_norm.default"}[what]
        category: Category = "softmax" if what == "softmax" else "normalization"
        flop = {"softmax": 5.0, "ln": 6.0}[what] * rows * columns
        self._add(name, category, [shape] * (passes - 1), [shape], flop, {"normalized_shape": [columns], "dim": -1})

    def _fused(self, parts: Sequence[str], inputs: Sequence[Shape], output: Shape) -> None:
        """One kernel that reads what comes from outside and writes its result; rows decide its kind."""
        rows = next((part for part in parts if part in ("softmax", "ln")), None)
        attributes = {"normalized_shape": [output[-1]], "dim": -1}
        category: Category = {None: "elementwise", "softmax": "softmax", "ln": "normalization"}[rows]  # type: ignore[assignment]
        flop = math.prod(output) * (len(parts) + (5.0 if rows else 0.0))
        ordered = sorted(inputs, key=math.prod, reverse=True)  # the shape of the first operand is that of the rows
        self._add(f"fused[{'+'.join(parts)}]", category, ordered, [output], flop, attributes if rows else {})

    def _stream(self, name: str, inputs: Sequence[Shape], outputs: Sequence[Shape], *,
                category: Category = "elementwise", extra: float = 0.0) -> None:  # fmt: skip
        """An operator that reads and writes each operand once; `extra` bytes of masks."""
        flop = POW_FLOP if name == "pow" else 1.0
        elements = max((math.prod(shape) for shape in [*inputs, *outputs]), default=0)
        self._add(f"aten.{name}.default", category, inputs, outputs, flop * elements, extra=extra)

    def _add(self, name: str, category: Category, inputs: Sequence[Shape], outputs: Sequence[Shape], flop: float,
             attributes: Mapping[str, object] | None = None, extra: float = 0.0) -> None:  # fmt: skip
        first = len(self._tensors)
        for shape in [*inputs, *outputs]:
            self._tensors.append(TensorInfo(tuple(shape), "float32", len(self._tensors), "activation"))
        taken = tuple(range(first, first + len(inputs)))
        made = tuple(range(first + len(inputs), len(self._tensors)))
        read_bytes = 4.0 * sum(math.prod(shape) for shape in inputs) + extra
        written_bytes = 4.0 * sum(math.prod(shape) for shape in outputs)
        self._ops.append(
            Op(name, "", "", self._phase, category, taken, made, flop, read_bytes, written_bytes, attributes or {})
        )


def _function(node: Mapping[str, str] | None) -> str:
    """The function or method that a node calls: 'size' of 'size_12'."""
    return node["name"].split("_")[0] if node is not None else ""


def joined(first: OpGraph, second: OpGraph) -> OpGraph:
    """One graph that runs `first`, then `second`."""
    shift = len(first.tensors)
    moved = tuple(
        Op(op.name, op.module, op.module_type, op.phase, op.category, tuple(i + shift for i in op.inputs),
           tuple(i + shift for i in op.outputs), op.flop, op.read_bytes, op.written_bytes, op.attributes)
        for op in second.ops
    )  # fmt: skip
    tensors = tuple(TensorInfo(info.shape, info.dtype, info.storage + shift, info.role) for info in second.tensors)
    return OpGraph(first.name, first.mode, first.ops + moved, first.tensors + tensors, parameters=0)
