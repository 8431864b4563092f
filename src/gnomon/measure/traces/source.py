"""From the file to JSON values: compressed or plain, whole or cut off in the middle."""

import json
import math
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.core.errors import DamagedData, NotRunnable, UsageError
from gnomon.measure.traces.damage import Damage

_LARGEST = 4 * 2**30  # characters; a million events of torch.profiler are a twentieth of it
_CHUNK = 1 << 22
_GZIP = b"\x1f\x8b"
_SPACE = re.compile(r"[ \t\r\n]*")
_SHOWN = 40
_WHOLE = 2**63 - 1  # what a record can hold
_FLOAT = 1e300


def read_text(path: Path, damage: Damage) -> str:
    """The text of a trace, decompressed where it is gzip. Raises UsageError, NotRunnable, DamagedData."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if data.startswith(_GZIP):
        data = _decompressed(data, damage)
    if len(data) > _LARGEST:
        raise NotRunnable(f"{path} holds over {_LARGEST >> 30} GiB; import a shorter trace", outcome="out-of-memory")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        damage.found("damaged-data", "bytes that are no UTF-8", f"at byte {error.start}", "replaced")
        return data.decode("utf-8-sig", "replace")


def _decompressed(data: bytes, damage: Damage) -> bytes:
    parts, size = [], 0
    while data:  # a gzip file may have several members
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            while not stream.eof:
                part = stream.decompress(data, _CHUNK)
                data = stream.unconsumed_tail
                parts.append(part)
                size += len(part)
                if size > _LARGEST:
                    text = f"{damage.name} decompresses to over {_LARGEST >> 30} GiB; import a shorter trace"
                    raise NotRunnable(text, outcome="out-of-memory")
                if not part and not data and not stream.eof:
                    damage.found("truncated-trace", "compressed data that is cut off", f"after {size} bytes", "used")
                    return b"".join(parts)
        except zlib.error as error:
            damage.found(
                "damaged-data", "compressed data that is damaged", f"after {size} bytes ({error})", "cut there"
            )
            return b"".join(parts)
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def loads(text: str, exact: bool = False) -> Any:
    """JSON. exact: numbers with a point become Decimal. Raises ValueError (RecursionError for endless brackets)."""
    return json.loads(text, parse_float=Decimal) if exact else json.loads(text)


class Salvaged(NamedTuple):
    """What is whole of an array. end: where reading stopped. is_broken: the text is no JSON there."""

    items: list[Any]
    end: int
    is_broken: bool


def salvaged(text: str, start: int, exact: bool = False) -> Salvaged:
    """The complete items of the array that opens at `start`.

    An array that merely lacks its ']' at the end of the text is not broken: the Chrome format allows that.
    """
    decode = json.JSONDecoder(parse_float=Decimal if exact else None).raw_decode
    items: list[Any] = []
    position = _skip(text, start + 1)
    while position < len(text) and text[position] != "]":
        try:
            item, end = decode(text, position)
        except (ValueError, RecursionError):
            return Salvaged(items, position, True)
        items.append(item)
        position = _skip(text, end)
        if position < len(text) and text[position] == ",":
            position = _skip(text, position + 1)
        elif position < len(text) and text[position] != "]":
            return Salvaged(items, position, True)
    return Salvaged(items, position, False)


def arrays(text: str, key: str) -> Iterator[int]:
    """Where arrays under `key` open, in a text that need not be whole JSON."""
    for found in re.finditer(rf'"{key}"\s*:\s*\[', text):
        yield found.end() - 1


def cut(damage: Damage, what: str, text: str, position: int) -> None:
    """Tell that the text breaks off (or breaks) at `position`."""
    rest = text[position : position + _SHOWN]
    shown = f"{rest!r}" + ("..." if len(text) > position + _SHOWN else "")
    damage.found("truncated-trace", "an end in the middle", f"{what}, then {shown} at character {position}", "used")


def plain(value: Any) -> Any:
    """A parsed JSON value as a record can hold it: numbers that are not finite or too large become text."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -_WHOLE <= value <= _WHOLE else hex(value)
    if kind is float or kind is Decimal:
        number = float(value)
        return number if math.isfinite(number) and abs(number) <= _FLOAT else str(value)
    if kind is list:
        return [plain(item) for item in value]
    return {str(key): plain(item) for key, item in value.items()}


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def no_trace(name: str, why: str) -> DamagedData:
    """The error for a file that is no trace at all."""
    wanted = (
        'wanted Chrome or Perfetto JSON (key "traceEvents", or a list of events) or OTLP JSON (key "resourceSpans")'
    )
    return DamagedData(f"{name} is no trace that can be read: {why}; {wanted}", outcome="bad-input")
