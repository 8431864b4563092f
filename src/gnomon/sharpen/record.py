"""What trying a recipe left behind, as stored. No torch here: the report reads these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gnomon.core.records import record
from gnomon.core.stats import RatioTest


@dataclass(frozen=True, slots=True)
class Distance:
    """How far outputs moved from the baseline's: cosine per row of the first output, and the largest difference.

    For a task that trains: cosine of the gradient of all parameters (one row), and the largest difference of the loss
    over the first steps.
    """

    mean_cosine: float
    least_cosine: float
    largest_difference: float
    rows: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of a recipe in an isolated process, before any timing. Just one of the three outcomes is there:

    why_not: why it does not apply. failure: what went wrong. distance: how far the outputs moved; then quality_before
    and quality_after hold the task's metrics, if it has any. prepare_s: applying it and the first call, seconds.
    """

    recipe: str
    options: Mapping[str, Any]
    why_not: str | None = None
    failure: str | None = None
    distance: Distance | None = None
    quality_before: Mapping[str, float] = field(default_factory=dict)
    quality_after: Mapping[str, float] = field(default_factory=dict)
    prepare_s: float | None = None


@record("change", 1)
@dataclass(frozen=True, slots=True)
class Change:
    """One recipe on one task. speedup: against `baseline`; against: the same against other variants, by name.

    quality_before, quality_after: metric -> value on the task's evaluation set. verdict: 'kept' when faster beyond
    the interval and within every bound; 'refused' with the reason; 'not applicable' when `why_not` said so; 'failed'.
    prepare_s: what applying the recipe once cost (export, compilation, quantization).
    """

    task: str
    task_digest: str
    recipe: str
    options: Mapping[str, Any]
    baseline: str
    verdict: Literal["kept", "refused", "not applicable", "failed"]
    reason: str
    speedup: RatioTest | None
    against: Mapping[str, RatioTest]
    quality_before: Mapping[str, float]
    quality_after: Mapping[str, float]
    distance: Distance | None
    prepare_s: float | None
