"""Identity of data: SHA-256 of canonical JSON, so that equal meaning gives an equal digest.

Canonical JSON: keys sorted, no white space, strings in Unicode normal form C, numbers in shortest round-trip form.
"""

import hashlib
import json
import math
import unicodedata
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """`value` (dicts with string keys, lists, tuples, strings, numbers, booleans, None) as canonical JSON.

    Raises ValueError for NaN and infinities, text that is no Unicode (a file name in another encoding), keys that are
    equal in normal form and endless nesting; TypeError for anything that JSON cannot hold.
    """
    try:
        text = json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        raise ValueError("canonical JSON cannot hold a value that is nested so deeply") from None
    except UnicodeEncodeError as error:
        cut = error.object[error.start : error.start + 20]
        raise ValueError(f"canonical JSON cannot hold text that is no Unicode, such as {cut!r}") from None
    return text


def digest(value: Any) -> str:
    """`sha256:<64 hex digits>` of the canonical JSON of `value`."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """`sha256:<64 hex digits>` of the bytes of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"canonical JSON wants string keys; got {[k for k in value if not isinstance(k, str)][:3]}")
        normal = {_normal(key): _normal(item) for key, item in value.items()}
        if len(normal) != len(value):
            raise ValueError("two keys are equal after Unicode normalisation")
        return normal
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"canonical JSON has no {value}")
        return int(value) if value.is_integer() and abs(value) < 2**63 else value  # 1.0 and 1 mean the same
    if value is None or isinstance(value, bool | int):
        return value
    raise TypeError(f"canonical JSON cannot hold a {type(value).__name__}")
