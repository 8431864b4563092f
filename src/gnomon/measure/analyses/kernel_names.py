"""A10: kernels by name, wherever they run."""

import math
from collections import defaultdict

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import Kernel, kernels, why_no_kernels, work_notes
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "kernel-names",
    "A10 kernels by name",
    "Which kernels take the time, all their calls together?",
    (
        Column("name", "text"),
        Column("calls", "count", "per step"),
        Column("layers", "count"),
        Column("seconds", "s"),
        Column("share", "share"),
        Column("flop", "FLOP"),
        Column("moved_bytes", "B"),
        Column("occupancy", "share", "weighted by duration"),
    ),
    frozenset({"graph"}),
)


def analyze(subject: Subject) -> Analysis:
    """Longest first."""
    rows = kernels(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_kernels(subject))
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for row in rows:
        groups[row.name].append(row)
    total = math.fsum(row.seconds for row in rows)
    table = []
    for name, same in groups.items():
        seconds = math.fsum(row.seconds for row in same)
        occupied = [row.occupancy * row.seconds for row in same if row.occupancy is not None]
        table.append(
            (name, sum(row.calls for row in same), len({row.layer for row in same}), seconds,
             seconds / total if total else 0.0, total_of([row.flop for row in same]),
             total_of([row.moved_bytes for row in same]),
             math.fsum(occupied) / seconds if seconds and len(occupied) == len(same) else None)
        )  # fmt: skip
    table.sort(key=lambda row: (-row[3], row[0]))
    return FORM.answer(subject.name, table, work_notes(subject, [row.flop for row in rows]))


def total_of(amounts: list[float | None]) -> float | None:
    """Their sum; None when one is not known."""
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if len(known) == len(amounts) else None
