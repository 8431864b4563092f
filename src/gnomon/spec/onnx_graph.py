"""What an ONNX file takes and returns, read from its protocol buffers alone: no package, no weights in memory.

Field numbers are those of onnx.proto (ONNX 1.x): ModelProto.graph 7; GraphProto.initializer 5, input 11, output 12.
"""

import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnomon.core.errors import ManifestError

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    16: "bfloat16",
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_AXES = 16


@dataclass(frozen=True, slots=True)
class Put:
    """An input or output of a graph. dtype: None when it is no tensor of a known type. shape: sizes, the graph's names,
    or None for an axis that is open."""

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...]

    def symbolic(self, stated: Sequence[int | str] | None = None) -> list[int | str]:
        """The shape with a name or a size for each open axis: B for the first one, else what is `stated` for it."""
        return [
            size
            if isinstance(size, int)
            else "B"
            if axis == 0
            else stated[axis]
            if stated is not None
            else _dimension(size, axis)
            for axis, size in enumerate(self.shape)
        ]


@dataclass(frozen=True, slots=True)
class Graph:
    """inputs: those that must be fed, without weights. outputs: in order."""

    inputs: tuple[Put, ...]
    outputs: tuple[Put, ...]


def read_graph(path: Path) -> Graph:
    """The inputs and outputs of an ONNX file. Raises ManifestError when it is none or is cut off."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            graphs = [
                value for number, value in _fields(data, 0, len(data)) if number == 7 and isinstance(value, range)
            ]
            if not graphs:
                raise ValueError("it holds no graph")
            return _graph(data, graphs[-1])
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:  # an empty file cannot be mapped: ValueError, too
        raise ManifestError(f"{path} is no ONNX file: {error}") from error


def _graph(data: mmap.mmap, graph: range) -> Graph:
    inputs: list[Put] = []
    outputs: list[Put] = []
    weights: set[str] = set()
    for number, value in _fields(data, graph.start, graph.stop):
        if not isinstance(value, range):
            continue
        if number == 5:
            weights.update(_text(data, inner) for n, inner in _fields(data, value.start, value.stop) if n == 8)
        elif number == 11:
            inputs.append(_put(data, value))
        elif number == 12:
            outputs.append(_put(data, value))
    return Graph(tuple(put for put in inputs if put.name not in weights), tuple(outputs))


def _put(data: mmap.mmap, value: range) -> Put:
    """A ValueInfoProto: name 1; type 2, of which tensor_type 1 has elem_type 1 and shape 2."""
    name, dtype, shape = "", None, tuple[int | str | None, ...]()
    for number, part in _fields(data, value.start, value.stop):
        if number == 1:
            name = _text(data, part)
        elif number == 2:
            for tensor in _inside(data, part, 1):
                for inner, what in _fields(data, tensor.start, tensor.stop):
                    if inner == 1 and isinstance(what, int):
                        dtype = _DTYPES.get(what)
                    elif inner == 2:
                        shape = tuple(_axis(data, axis) for axis in _inside(data, what, 1))
    if len(shape) > _MOST_AXES:
        raise ValueError(f"{name!r} has {len(shape)} axes")
    return Put(name, dtype, shape)


def _axis(data: mmap.mmap, axis: range) -> int | str | None:
    for number, value in _fields(data, axis.start, axis.stop):
        if number == 1 and isinstance(value, int) and 0 < value < 2**63:
            return value
        if number == 2:
            return _text(data, value) or None
    return None


def _inside(data: mmap.mmap, value: int | range, number: int) -> Iterator[range]:
    if not isinstance(value, range):
        raise ValueError("a message was wanted where a number stands")
    yield from (part for n, part in _fields(data, value.start, value.stop) if n == number and isinstance(part, range))


def _text(data: mmap.mmap, value: int | range) -> str:
    if not isinstance(value, range) or len(value) > 4096:
        raise ValueError("a name was wanted")
    return data[value.start : value.stop].decode()


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int | range]]:
    """The fields of a message: number, and its value or the range of its bytes. Raises ValueError when cut off."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, value
            continue
        length = 8 if wire == _FIXED64 else 4 if wire == _FIXED32 else -1
        if wire == _BYTES:
            length, at = _varint(data, at, end)
        if number == 0 or length < 0 or at + length > end:
            raise ValueError(f"byte {at} begins no whole field")
        if wire == _BYTES:
            yield number, range(at, at + length)
        at += length


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at} begins no number")


def _dimension(name: int | str | None, axis: int) -> str:
    """The graph's name of an axis as the name of a dimension."""
    word = re.sub(r"\W", "", str(name or ""), flags=re.ASCII).strip("_0123456789")[:16]
    return word[0].upper() + word[1:] if word else f"D{axis}"
