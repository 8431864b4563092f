"""A comparison in words: the verdict, how sure it is, and what it could not have seen."""

from gnomon.core.stats import RatioTest
from gnomon.measure.spread import Spread
from gnomon.report import text


def verdict(test: RatioTest) -> str:
    """'faster', 'slower', 'no difference within 2 %' or 'undecided'."""
    if test.verdict == "no difference" and test.margin is not None:
        return f"no difference within {percent(test.margin)}"
    return test.verdict


def sentence(name: str, baseline: str, test: RatioTest) -> str:
    """'B is slower: it takes 5.1 % longer than A [4.2, 6.0].'"""
    change = 1 / test.speedup.value - 1
    direction = "longer" if change >= 0 else "shorter"
    found = f"it takes {percent(abs(change))} {direction} than {baseline}"
    if test.speedup.low is None or test.speedup.high is None:
        return f"{name}, {verdict(test)}: {found}, but one session bounds nothing."
    ends = f"[{100 * (1 / test.speedup.high - 1):+.1f}, {100 * (1 / test.speedup.low - 1):+.1f}]"
    return f"{name}, {verdict(test)}: {found} {ends}."


def cannot_see(test: RatioTest) -> str:
    """What so many sessions could not have found: the power of the comparison."""
    n = test.speedup.n
    if test.detectable is None:
        return "With one session no difference can be seen, however large: take more with --sessions."
    return f"With these {n} sessions a difference below {percent(test.detectable - 1)} cannot be seen (80 % power)."


def spread(found: Spread) -> str:
    """What sessions differ by, and the error below which no forecast can be scored, in one sentence."""
    if found.floor is None or found.one_session is None:
        return (
            "One session: what sessions differ by, and so how well a forecast could be scored, is not known. Take more "
            "with --sessions."
        )
    within = "" if found.within is None else f", and its calls leave {percent(found.within)} of one uncertain"
    ends = (
        ""
        if found.between.low is None or found.between.high is None
        else (f" [{100 * found.between.low:.2g}, {100 * found.between.high:.2g}]")
    )
    return (
        f"{found.sessions} sessions differ by {percent(found.between.value)}{ends} (standard deviation, "
        f"{'CPU' if found.clock == 'cpu' else 'wall'} time){within}: a forecast cannot be scored below "
        f"{percent(found.floor)} against them, nor below {percent(found.one_session)} against one."
    )


def percent(fraction: float) -> str:
    """'2 %', '3.1 %': as many digits as a margin needs."""
    return f"{100 * fraction:.2g} %" if fraction < 0.1 else text.percent(fraction)
