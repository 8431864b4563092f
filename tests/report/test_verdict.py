import pytest

from gnomon.core.stats import ratio_test
from gnomon.measure.spread import of_times
from gnomon.report import verdict

BASE = [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([1.1, 1.101, 1.099, 1.1], "slower"),
        ([0.9, 0.901, 0.899, 0.9], "faster"),
        ([1.0, 1.001, 0.999, 1.0], "no difference within 2 %"),
        ([1.0, 1.5, 0.8, 1.0], "undecided"),
    ],
)
def test_the_four_verdicts_are_told(times, said):
    test = ratio_test(BASE, times, margin=0.02)
    assert verdict.verdict(test) == said
    assert verdict.sentence("B", "A", test).startswith(f"B, {said}: it takes ")


def test_a_sentence_has_the_change_in_per_cent_with_its_interval_in_the_same_direction():
    text = verdict.sentence("B", "A", ratio_test(BASE, [1.05, 1.051, 1.049, 1.05]))
    assert "takes 5 % longer than A [+4.9, +5.1]." in text
    assert "takes 5 % shorter than A" in verdict.sentence("B", "A", ratio_test(BASE, [0.95, 0.951, 0.949, 0.95]))


def test_the_power_is_always_told():
    test = ratio_test(BASE, [1.0, 1.01, 0.99, 1.0])
    assert verdict.cannot_see(test) == (
        f"With these 4 sessions a difference below {100 * (test.detectable - 1):.2g} % cannot be seen (80 % power)."
    )
    assert "With one session no difference can be seen" in verdict.cannot_see(ratio_test([1.0], [2.0]))
    assert "one session bounds nothing" in verdict.sentence("B", "A", ratio_test([1.0], [2.0]))


def test_the_spread_says_below_what_no_forecast_can_be_scored():
    found = of_times([1.0, 1.05, 0.95, 1.0], "cpu")
    said = verdict.spread(found)
    assert "4 sessions differ by 4.1 %" in said
    assert f"cannot be scored below {verdict.percent(found.floor)} against them" in said
    assert "is not known" in verdict.spread(of_times([1.0], "wall"))
