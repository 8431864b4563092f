"""A11: kernels by layer."""

import math
from collections import defaultdict

from gnomon.measure.analyses.analysis import Analysis, Column, Form
from gnomon.measure.analyses.rows import Kernel, kernels, why_no_kernels
from gnomon.measure.analyses.subject import Subject

FORM = Form(
    "layer-kernels",
    "A11 kernels by layer",
    "How many kernels does each layer run, and how long do they take?",
    (
        Column("layer", "text", "the innermost; '(model)' for what no layer runs"),
        Column("kernels", "count", "of different name or shapes"),
        Column("calls", "count", "per step"),
        Column("seconds", "s"),
        Column("share", "share"),
        Column("longest", "text", "the kernel that takes most of it"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """Longest first."""
    rows = kernels(subject)
    if not rows:
        return FORM.cannot(subject.name, why_no_kernels(subject))
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for row in rows:
        groups[row.layer].append(row)
    total = math.fsum(row.seconds for row in rows)
    sums = {layer: math.fsum(row.seconds for row in same) for layer, same in groups.items()}
    return FORM.answer(
        subject.name,
        [
            (layer or "(model)", len(groups[layer]), sum(row.calls for row in groups[layer]), seconds,
             seconds / total if total else 0.0, groups[layer][0].name)
            for layer, seconds in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        ],
    )  # fmt: skip
