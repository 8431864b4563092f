import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.stats import Interval, RatioTest
from gnomon.sharpen.judge import judge
from gnomon.sharpen.record import Distance, Verification
from gnomon.spec.task import Quality
from tests.sharpen.tiny import task

FASTER = RatioTest(Interval(2.0, 1.9, 2.1, 0.95, 3), 1.05, "faster")
SLOWER = RatioTest(Interval(0.92, 0.90, 0.95, 0.95, 3), 1.04, "slower")
UNDECIDED = RatioTest(Interval(1.01, 0.97, 1.05, 0.95, 3), 1.04, "undecided")
SINGLE = RatioTest(Interval(3.0, None, None, 0.95, 1), None, "undecided")


def found(cosine=1.0, before=None, after=None, **changes):
    distance = Distance(cosine, cosine, 0.0, 4)
    return replace(
        Verification("some", {}, distance=distance, quality_before=before or {}, quality_after=after or {}), **changes
    )


def verdict(verification, speedup=FASTER, failure=None, **quality):
    if "metric" in quality:
        quality["evaluate"] = "some:measure"
    return judge(
        task(quality=Quality(**quality)), verification, baseline="eager", speedup=speedup, against={}, failure=failure
    )


@given(
    cosine=st.floats(-1, 1),
    bound=st.floats(0, 1),
    before=st.floats(0, 1),
    after=st.floats(0, 1),
    loss=st.floats(0, 0.5),
    higher=st.booleans(),
    speedup=st.sampled_from([FASTER, SLOWER, UNDECIDED, SINGLE]),
)
def test_a_recipe_is_kept_if_and_only_if_it_is_faster_and_within_every_bound(
    cosine, bound, before, after, loss, higher, speedup
):
    change = verdict(
        found(cosine, {"m": before}, {"m": after}),
        speedup,
        metric="m",
        higher_is_better=higher,
        largest_loss=loss,
        least_cosine=bound,
    )
    worse = before - after if higher else after - before
    holds = cosine >= bound and worse <= loss and speedup.verdict == "faster"
    assert change.verdict == ("kept" if holds else "refused")
    assert change.reason
    assert change.speedup is speedup  # a refused recipe's speed is told, too


@given(after=st.floats(0, 1))
def test_getting_better_is_never_a_loss(after):
    change = verdict(found(1.0, {"m": after / 2}, {"m": after}), metric="m", largest_loss=0.0)
    assert change.verdict == "kept"


def test_where_lower_is_better_a_lower_metric_is_no_loss():
    lower = found(1.0, {"error": 0.5}, {"error": 0.4})
    higher = found(1.0, {"error": 0.4}, {"error": 0.5})
    assert verdict(lower, metric="error", higher_is_better=False).verdict == "kept"
    assert verdict(higher, metric="error", higher_is_better=False).verdict == "refused"
    assert verdict(lower, metric="error").verdict == "refused"


@pytest.mark.parametrize(
    ("verification", "speedup", "verdict_and_reason"),
    [
        (found(0.953), FASTER, ("refused", "mean cosine 0.953 is below the bound 0.985")),
        (found(0.9849996), FASTER, ("refused", "mean cosine 0.9849996 is below the bound 0.985")),
        (found(), SLOWER, ("refused", "not faster; 0.92x [0.90, 0.95]")),
        (found(), UNDECIDED, ("refused", "undecided; 1.01x [0.97, 1.05], 1.04x would have been detectable")),
        (found(), SINGLE, ("refused", "undecided; 3.00x from a single session bounds nothing")),
        (found(0.992), FASTER, ("kept", "2.00x [1.90, 2.10] faster at mean cosine 0.992 (bound 0.985)")),
        (found(float("nan")), FASTER, ("refused", "mean cosine nan is below the bound 0.985")),
        (found(), None, ("failed", "it was not timed")),
        (found(distance=None), FASTER, ("failed", "its outputs were not compared")),
        (found(distance=None, failure="it burst"), None, ("failed", "it burst")),
        (found(distance=None, why_not="no compiler"), None, ("not applicable", "no compiler")),
    ],
)
def test_each_verdict_has_its_reason_with_the_numbers(verification, speedup, verdict_and_reason):
    change = verdict(verification, speedup, least_cosine=0.985)
    assert (change.verdict, change.reason) == verdict_and_reason


def test_a_failure_while_timing_is_told_as_such():
    change = verdict(found(), None, failure="NaN in output 0")
    assert (change.verdict, change.reason) == ("failed", "while it was timed: NaN in output 0")


def test_a_metric_that_gets_worse_is_told_with_its_bound_and_beside_other_reasons():
    change = verdict(
        found(0.5, {"spearman": 0.51}, {"spearman": 0.47}), metric="spearman", largest_loss=0.01, least_cosine=0.985
    )
    assert change.verdict == "refused"
    assert "mean cosine 0.5 is below the bound 0.985" in change.reason
    assert "spearman goes from 0.51 to 0.47, a loss of 0.04; the bound is 0.01" in change.reason
    assert verdict(found(), metric="spearman").reason == "spearman was not measured"


@given(cosine=st.floats(0.5, 1), bound=st.floats(0.5, 1))
def test_a_reason_never_prints_two_equal_numbers_where_one_is_below_the_other(cosine, bound):
    change = verdict(found(cosine), least_cosine=bound)
    if change.verdict == "refused":
        printed = re.fullmatch(r"mean cosine (\S+) is below the bound (\S+)", change.reason)
        assert float(printed[1]) < float(printed[2])
