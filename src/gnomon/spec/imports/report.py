"""What became of every key of an imported manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["mapped", "kept", "unmapped", "refused", "mended"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One key of the imported file.

    outcome: 'mapped' to our key `to`; 'kept' as provenance in a label; 'unmapped': nothing of ours can hold it;
    'refused': it means nothing or is not taken over on purpose; 'mended' before it was read. note: why, and what to do.
    """

    key: str
    line: int
    outcome: Outcome
    to: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """One manifest that was imported.

    documents: 'model', 'task' and, where the framework is a package, 'software': plain data of valid manifests, which
    refer to each other as <stem>.model.yaml and so on. files: name beside them -> the asset to copy there.
    why_not_runnable: None when the task can be resolved. lossless: everything but inline code can be given back, and
    there was none.
    """

    source: str
    name: str
    documents: Mapping[str, Mapping[str, Any]]
    remarks: tuple[Remark, ...]
    lossless: bool
    why_not_runnable: str | None
    files: Mapping[str, Path] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        """How many keys have this outcome."""
        return sum(remark.outcome == outcome for remark in self.remarks)


@dataclass(frozen=True, slots=True)
class Failed:
    """One manifest that could not be imported: each line of `error` is `file:line: key: what`."""

    source: str
    error: str
