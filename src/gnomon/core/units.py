"""Quantities in base units (seconds, bytes, FLOP): reading what people write, printing what people read."""

import math
import re
from typing import NamedTuple

_DECIMAL = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*"


class Scaled(NamedTuple):
    value: float
    prefix: str


def parse_bytes(text: str) -> int:
    """'16GiB', '1.5 GB', '300' -> bytes; KB/MB/GB are powers of 1000, KiB/MiB/GiB of 1024. Raises ValueError."""
    match = re.fullmatch(_NUMBER + r"([kKMGTPE]i?)?B?\s*", text)
    if not match or (match[2] or "") not in _DECIMAL | _BINARY:
        raise ValueError(f"wanted an amount of memory such as '16GiB' or '512MB'; got {text!r}")
    amount = float(match[1]) * (_DECIMAL | _BINARY)[match[2] or ""]
    if amount >= 2**63:
        raise ValueError(f"no memory has {text!r}")
    return round(amount)


def parse_seconds(text: str) -> float:
    """'2m', '250 ms', '30' -> seconds. Raises ValueError."""
    match = re.fullmatch(_NUMBER + r"([a-z\u00b5\u03bc]*)\s*", text)
    if not match or (match[2] or "s") not in _SECONDS:
        raise ValueError(f"wanted a time such as '2m', '30s' or '250ms'; got {text!r}")
    seconds = float(match[1]) * _SECONDS[match[2] or "s"]
    if math.isinf(seconds):
        raise ValueError(f"no time is as long as {text!r}")
    return seconds


def scaled(value: float) -> Scaled:
    """`value` divided by the largest power of 1000 that leaves at least 1, with that power's prefix."""
    for prefix in ("E", "P", "T", "G", "M", "k"):
        if abs(value) >= _DECIMAL[prefix]:
            return Scaled(value / _DECIMAL[prefix], prefix)
    return Scaled(value, "")


def format_seconds(seconds: float) -> str:
    """Three significant digits in the unit that fits: '1.23 ms'."""
    rounded = float(f"{seconds:.3g}")  # the unit is chosen after rounding: 999.7 us is 1 ms, never 1e+03 us
    for unit in ("s", "ms", "us"):
        if abs(rounded) >= _SECONDS[unit]:
            return f"{rounded / _SECONDS[unit]:.3g} {unit}" if abs(rounded) < 1000 else f"{seconds:.0f} s"
    return f"{rounded * 1e9:.3g} ns"


def format_bytes(count: float) -> str:
    """Four significant digits in binary units: '1.5 GiB'."""
    for prefix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        rounded = f"{count / _BINARY[prefix]:.4g}"  # the unit is chosen after rounding here, too
        if abs(float(rounded)) >= 1:
            return f"{rounded} {prefix}B"
    return f"{count:.0f} B"


def format_count(count: float, unit: str = "") -> str:
    """Decimal prefixes: format_count(2.5e12, 'FLOP') is '2.5 TFLOP'."""
    value, prefix = scaled(float(f"{count:.3g}"))
    return f"{value:.3g} {prefix}{unit}".rstrip()
