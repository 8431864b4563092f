"""What trying a recipe left behind, as stored. No torch here: the report reads these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gnomon.core.records import record
from gnomon.core.stats import RatioTest


@dataclass(frozen=True, slots=True)
class Distance:
    """How far outputs moved from the baseline's: cosine per row of the first output, and the largest difference."""

    mean_cosine: float
    least_cosine: float
    largest_difference: float
    rows: int


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
