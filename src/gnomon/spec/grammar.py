"""The small grammars inside manifests: names, versions, references, targets, sizes. Shared by reader and JSON Schema.

Each pattern ends in `$(?!\\n)`: Python's `$` alone also matches before a final line break, that of ECMAScript does not.
"""

import re

from gnomon.core.records import Constraint

_VERSION = r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}(?:(?:a|b|rc)[0-9]{1,9})?"
_NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_RANGE = rf"(?:\^|~|==|>=|<=|>|<|!=)?{_VERSION}"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_TARGET = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*:{_IDENTIFIER}"
LARGEST_SIZE = 10**9


def matching(wanted: str, pattern: str) -> Constraint:
    """Text that matches the whole of `pattern`, in the reader and in JSON Schema alike."""
    anchored = rf"^(?:{pattern})$(?!\n)"
    compiled = re.compile(anchored)
    return Constraint(wanted, lambda value: compiled.search(value) is not None, {"pattern": anchored})


NAME = matching("a name in small letters, digits, '-', '_' and '.', up to 64 of them, such as 'gpt2-small'", _NAME)
VERSION = matching("a version in quotes such as '1.2.0'", _VERSION)
REFERENCE = matching(
    "a reference such as 'gpt2-small@^1.2', 'gpt2-small@>=1,<2' or 'gpt2-small'",
    rf"{_NAME}(?:@(?:\*|sha256:[0-9a-f]{{64}}|{_RANGE}(?:,{_RANGE}){{0,3}}))?",
)
TARGET = matching("a callable of an installed package such as 'package.module:callable'", _TARGET)
CLASS = matching("a class of transformers such as 'BertModel'", _IDENTIFIER)
LOSS = matching("'mean', 'sum' or a callable 'package.module:callable'", rf"mean|sum|{_TARGET}")
DIM = matching(
    "the name of a dimension: a capital, then up to 15 letters or digits, such as 'B'", r"[A-Z][A-Za-z0-9_]{0,15}"
)
ARGUMENT = matching("the name of an argument", _IDENTIFIER)
INPUT = matching("the name of an input such as 'input_ids' or 'images:0'", r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,254}")
LAYOUT = matching("a layout, a capital for each axis, such as 'NCHW'", r"[A-Z]{1,16}")
SHA256 = matching("a SHA-256 of 64 hexadecimal digits", r"[0-9a-f]{64}")
DIGEST = matching("a digest such as 'sha256:' and 64 hexadecimal digits", r"sha256:[0-9a-f]{64}")
URL = matching("an address such as 'https://example.org/data.npz'", r"https?://[^\s]{1,2000}")
ARCHITECTURE = matching("an architecture such as 'sm_80' or 'gfx942'", r"sm_[0-9]{2,3}|gfx[0-9a-f]{3,4}")
ENV_NAME = matching("the name of an environment variable such as 'OMP_NUM_THREADS'", r"[A-Z][A-Z0-9_]{0,63}")
PACKAGE_FILE = matching(
    "a file of an installed distribution such as 'distribution/path/inside'",
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[^/\\\x00]+)+",
)
REQUIREMENT = Constraint("a requirement such as 'torch>=2.9'", lambda value: len(value) > 0, {"minLength": 1})
SIZE = Constraint(
    f"a whole number from 1 to {LARGEST_SIZE:,}",
    lambda value: 1 <= value <= LARGEST_SIZE,
    {"minimum": 1, "maximum": LARGEST_SIZE},
)
