"""The verdict on a recipe: kept only when it is faster beyond doubt and within every bound. Pure."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from gnomon.core.stats import RatioTest
from gnomon.sharpen.record import Change, Verification
from gnomon.spec.task import Quality, Task

Verdict = Literal["kept", "refused", "not applicable", "failed"]


class _Ruling(NamedTuple):
    verdict: Verdict
    reason: str


def judge(
    task: Task,
    verification: Verification,
    *,
    baseline: str,
    speedup: RatioTest | None,
    against: Mapping[str, RatioTest],
    failure: str | None = None,
) -> Change:
    """The Change for one recipe.

    speedup: against `baseline`, None when it was not timed. against: the same against other variants. failure: what
    went wrong while it was timed.
    """
    ruling = _rule(task.quality, verification, speedup, failure)
    return Change(
        task=task.name,
        task_digest=task.digest,
        recipe=verification.recipe,
        options=verification.options,
        baseline=baseline,
        verdict=ruling.verdict,
        reason=ruling.reason,
        speedup=speedup,
        against=dict(against),
        quality_before=verification.quality_before,
        quality_after=verification.quality_after,
        distance=verification.distance,
        prepare_s=verification.prepare_s,
    )


def _rule(quality: Quality, found: Verification, speedup: RatioTest | None, failure: str | None) -> _Ruling:
    if found.why_not is not None:
        return _Ruling("not applicable", found.why_not)
    if found.failure is not None:
        return _Ruling("failed", found.failure)
    if failure is not None:
        return _Ruling("failed", f"while it was timed: {failure}")
    if found.distance is None:
        return _Ruling("failed", "its outputs were not compared")
    broken = _broken_bounds(quality, found)
    if broken:
        return _Ruling("refused", "; ".join(broken))
    if speedup is None:
        return _Ruling("failed", "it was not timed")
    if speedup.verdict != "faster":
        return _Ruling("refused", _not_faster(speedup))
    return _Ruling("kept", _kept(quality, found, speedup))


def _broken_bounds(quality: Quality, found: Verification) -> list[str]:
    assert found.distance is not None
    broken = []
    cosine = found.distance.mean_cosine
    if not cosine >= quality.least_cosine:  # written so that NaN is out of bounds
        value, bound = _apart(cosine, quality.least_cosine)
        broken.append(f"mean cosine {value} is below the bound {bound}")
    if quality.metric is not None:
        if quality.metric not in found.quality_before or quality.metric not in found.quality_after:
            return [*broken, f"{quality.metric} was not measured"]
        before, after = found.quality_before[quality.metric], found.quality_after[quality.metric]
        loss = before - after if quality.higher_is_better else after - before
        if not loss <= quality.largest_loss:
            value, bound = _apart(loss, quality.largest_loss)
            a, b = _apart(before, after)
            broken.append(f"{quality.metric} goes from {a} to {b}, a loss of {value}; the bound is {bound}")
    return broken


def _not_faster(speedup: RatioTest) -> str:
    if speedup.verdict == "slower":
        return f"not faster; {_ratio(speedup)}"
    if speedup.detectable is None:
        return f"undecided; {_ratio(speedup)} from a single session bounds nothing"
    return f"undecided; {_ratio(speedup)}, {speedup.detectable:.2f}x would have been detectable"


def _kept(quality: Quality, found: Verification, speedup: RatioTest) -> str:
    assert found.distance is not None
    cosine, bound = _apart(found.distance.mean_cosine, quality.least_cosine)
    text = f"{_ratio(speedup)} faster at mean cosine {cosine} (bound {bound})"
    if quality.metric is not None:
        a, b = _apart(found.quality_before[quality.metric], found.quality_after[quality.metric])
        text += f", {quality.metric} {a} before, {b} after"
    return text


def _ratio(test: RatioTest) -> str:
    interval = test.speedup
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2f}x"
    return f"{interval.value:.2f}x [{interval.low:.2f}, {interval.high:.2f}]"


def _apart(a: float, b: float) -> tuple[str, str]:
    """Both numbers with as many digits as it takes to tell them apart, at least three."""
    for digits in range(3, 17):
        pair = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if pair[0] != pair[1]:
            return pair
    return f"{a:.3g}", f"{b:.3g}"
