import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnomon.core.errors import CheckFailed, NotRunnable, UsageError
from gnomon.core.looks import Looks
from gnomon.core.records import from_json, to_json
from gnomon.core.stats import ratio_test
from gnomon.measure.child import Variant
from gnomon.measure.compare import auto, compare, compare_tasks, session_times
from gnomon.measure.record import Comparison, Session
from tests.measure import tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _children_find_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def _variant(name, **options):
    return Variant(name, f"{tasks.VARIANTS}:{name}", options)


class Machine:
    """Sessions without processes: each variant takes its pace, times noise that its process and its calls have.

    paces: variant -> seconds of a call. spread: of the processes; drift: what each session adds to the second variant.
    """

    def __init__(self, paces, spread=0.004, drift=0.0, seed=0):
        self.paces, self.spread, self.drift, self.asked = paces, spread, drift, []
        self.rng = np.random.default_rng(seed)

    def __call__(self, task, variants, function, seed, calls, say=None):
        self.asked.append([v.name for v in variants])
        common, found = np.exp(self.rng.normal(0, 0.1)), []  # what a process does to all its variants
        for v in variants:
            pace = self.paces[v.name] * common * np.exp(self.rng.normal(0, self.spread))
            pace *= 1 + self.drift * seed * (v.name != next(iter(self.paces)))
            cpu = pace * (1 + np.abs(self.rng.normal(0, 0.02, 20)))
            wall = cpu * (1 + self.rng.exponential(1.0, 20))  # others use the machine
            session = Session(tuple(wall), tuple(cpu), (0,) * 20, 9, True, 1.0, 0.1, 0.1, 10**8)
            found.append({"name": v.name, "failure": None, "session": to_json(session), "digest": f"sha256:{v.name}"})
        return json.loads(json.dumps({"variants": found, "allocator": "glibc"}))


def paced(paces, sessions=None, **arguments):
    """A comparison of variants with these paces on a `Machine`, and that machine."""
    given = {name: arguments.pop(name) for name in ("spread", "drift", "seed") if name in arguments}
    machine = Machine(paces, **given)
    done = compare(tasks.linear(), [Variant(n) for n in paces], sessions=sessions, run=machine, **arguments)
    return done, machine


def test_sessions_are_added_until_every_variant_is_told_apart_or_found_equal():
    found, machine = paced({"eager": 1.0, "same": 1.0, "slow": 1.05, "fast": 0.9}, auto())
    assert {n: test.verdict for n, test in found.ratios.items()} == {
        "same": "no difference", "slow": "slower", "fast": "faster",
    }  # fmt: skip
    assert found.looks == (3, 4, 6, 9, 13, 20)
    assert len(machine.asked) in (3, 4, 6)
    assert all(len(one.sessions) == len(machine.asked) for one in found.variants)


def test_a_difference_at_the_margin_is_left_undecided_at_the_most_sessions():
    found, machine = paced({"eager": 1.0, "b": 1.001}, auto(4), spread=0.1)
    assert (found.ratios["b"].verdict, len(machine.asked), found.looks) == ("undecided", 4, (3, 4))


def test_the_interval_of_a_growing_sample_is_wider_than_that_of_a_fixed_one():
    growing, machine = paced({"eager": 1.0, "b": 1.05}, auto(), seed=3)
    n = len(machine.asked)
    fixed, _ = paced({"eager": 1.0, "b": 1.05}, n, seed=3)
    a, b = growing.ratios["b"].speedup, fixed.ratios["b"].speedup
    assert a.value == b.value
    assert a.low < b.low < b.high < a.high
    assert growing.ratios["b"].detectable > fixed.ratios["b"].detectable


def test_variants_are_built_in_turns():
    _, machine = paced({"a": 1.0, "b": 1.0, "c": 1.0}, 4)
    assert machine.asked == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_without_a_margin_nothing_is_called_equal():
    found, _ = paced({"eager": 1.0, "same": 1.0}, 6, margin=None)
    assert found.ratios["same"].margin is None
    assert found.ratios["same"].verdict != "no difference"


def test_the_clock_that_is_asked_for_is_compared():
    found, _ = paced({"eager": 1.0, "b": 2.0}, 3, clock="wall")
    times = {one.name: session_times(one.sessions, "wall") for one in found.variants}
    assert found.ratios["b"] == ratio_test(times["eager"], times["b"], margin=0.02)


def test_a_ratio_that_drifts_from_session_to_session_is_warned_about():
    found, _ = paced({"eager": 1.0, "leaks": 1.0}, 10, drift=0.03)
    assert any("leaks against the baseline: ratios of sessions" in text and "slower" in text for text in found.warnings)
    steady, _ = paced({"eager": 1.0, "steady": 1.0}, 10)
    assert steady.warnings == ()


def test_tasks_take_turns_in_processes_of_their_own():
    machine = Machine({"A": 1.0, "B": 1.0})
    sides = {"A": tasks.linear(), "B": tasks.linear(width=16, digest="sha256:1")}
    found = compare_tasks(sides, sessions=8, run=machine)
    assert [len(names) for names in machine.asked] == [1] * 16
    firsts = [machine.asked[2 * i][0] for i in range(8)]
    assert {"A", "B"} == set(firsts)  # neither is always the first of its pair
    assert all({a[0], b[0]} == {"A", "B"} for a, b in zip(machine.asked[::2], machine.asked[1::2], strict=True))
    assert (found.pairs, found.baseline, found.clock) == ("sessions", "A", "cpu")
    assert found.tasks == {"A": "sha256:0", "B": "sha256:1"}
    assert "their outputs differ" in found.warnings
    assert found.ratios["B"].speedup.low < 0.95  # processes differ by a tenth, and pairs do not take that out


def test_a_task_on_another_device_is_compared_by_wall_time():
    sides = {"A": tasks.linear(), "B": tasks.linear(device="cuda:0")}
    assert compare_tasks(sides, sessions=2, run=Machine({"A": 1.0, "B": 1.0})).clock == "wall"


def test_the_task_that_fails_is_named_and_the_error_keeps_its_class():
    def run(task, variants, *rest):
        if variants[0].name == "B":
            raise NotRunnable("no memory", outcome="out-of-memory")
        return Machine({"A": 1.0})(task, variants, *rest)

    with pytest.raises(NotRunnable, match=r"^B: no memory$") as caught:
        compare_tasks({"A": tasks.linear(), "B": tasks.linear()}, run=run)
    assert caught.value.outcome == "out-of-memory"


@pytest.mark.parametrize("sides", [{}, {"A": tasks.linear()}])
def test_one_task_is_nothing_to_compare(sides):
    with pytest.raises(UsageError, match="wanted at least two tasks to compare"):
        compare_tasks(sides)


def test_a_side_of_no_size_is_refused_before_any_process_starts():
    sides = {"A": tasks.linear(), "B": tasks.linear(dims={"B": 0})}
    with pytest.raises(UsageError, match="dimension B is 0"):
        compare_tasks(sides, progress=_no_child)


def test_so_few_sessions_cannot_be_chosen_from():
    with pytest.raises(UsageError, match="at least 3 sessions to choose their number from; got at most 2"):
        auto(2)
    assert auto(5) == Looks((3, 4, 5))


def test_equal_variants_are_called_different_at_most_one_time_in_twenty_whatever_processes_do():
    verdicts = [paced({"a": 1.0, "b": 1.0}, auto(9), spread=0.05, seed=i)[0].ratios["b"].verdict for i in range(150)]
    wrong = sum(verdict in ("faster", "slower") for verdict in verdicts)
    assert wrong <= 17  # 1 in 1000 when it is one in twenty


def _no_child(text):
    raise AssertionError(f"a request that is wrong must be refused before a process starts; got {text}")


def test_two_real_tasks_are_told_apart_by_their_times():
    quick = replace(tasks.PROTOCOL, warmup_s=0.3)
    sides = {"small": tasks.linear(width=64, protocol=quick), "large": tasks.linear(width=512, protocol=quick)}
    found = compare_tasks(sides, sessions=1, calls=20)
    assert found.ratios["large"].speedup.value < 0.8
    assert {one.name: len(one.sessions) for one in found.variants} == {"small": 1, "large": 1}


def test_a_comparison_survives_json(compared):
    assert from_json(to_json(compared), Comparison) == compared


def test_a_comparison_that_was_stored_before_equality_was_asked_for_is_still_read(compared):
    old = to_json(compared)
    for key in ("statistic", "pairs", "looks", "tasks", "warnings"):
        del old[key]
    for ratio in old["ratios"].values():
        del ratio["margin"], ratio["equivalence"]
    found = from_json(old, Comparison)
    assert (found.statistic, found.ratios["twice"].margin) == ("median", None)


@pytest.fixture(scope="module")
def compared(_children_find_the_tests):
    """Real sessions of five variants, of which one takes the whole process down and one returns NaN."""
    variants = [Variant("eager"), _variant("twice", times=3), _variant("crashes"), _variant("nan"), _variant("prints")]
    task = tasks.linear(width=256)
    return compare(task, variants, sessions=2, calls=9)


def test_a_slower_variant_is_found_slower_by_about_its_factor(compared):
    ratio = compared.ratios["twice"]
    assert 0.15 < ratio.speedup.value < 0.75  # three products instead of one
    times = {one.name: session_times(one.sessions, "cpu") for one in compared.variants}
    assert ratio == ratio_test(times["eager"], times["twice"], margin=0.02)
    assert (compared.statistic, compared.pairs, compared.looks) == ("fast half", "calls", ())


def test_a_variant_that_crashes_or_returns_nan_is_recorded_and_the_others_go_on(compared):
    failures = {one.name: one.failure for one in compared.variants}
    assert "crashed with SIGSEGV" in failures["crashes"]
    assert "NaN" in failures["nan"]
    assert failures["eager"] is failures["twice"] is failures["prints"] is None
    assert set(compared.ratios) == {"twice", "prints"}
    assert {one.name: len(one.sessions) for one in compared.variants} == {
        "eager": 2, "twice": 2, "crashes": 0, "nan": 0, "prints": 2,
    }  # fmt: skip


def test_what_a_model_prints_does_not_enter_its_results(compared):
    by_name = {one.name: one for one in compared.variants}
    assert by_name["prints"].output_digest == by_name["eager"].output_digest is not None
    assert by_name["crashes"].output_digest is None


def test_variants_are_timed_in_pairs_within_a_session(compared):
    by_name = {one.name: one for one in compared.variants}
    pairs = zip(by_name["eager"].sessions, by_name["twice"].sessions, strict=True)
    assert all(len(a.wall_s) == len(b.wall_s) == 9 for a, b in pairs)


def test_a_baseline_that_fails_is_an_error():
    with pytest.raises(CheckFailed, match=r"the process of gnomon\.measure\.session:times crashed with SIGSEGV"):
        compare(tasks.linear(), [_variant("crashes"), Variant("eager")], sessions=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": []}, r"wanted variants with different names, the baseline first; got \[\]"),
        ({"variants": [Variant("a"), Variant("a")]}, "different names"),
        ({"calls": 0}, "wanted at least 1 call per session; got 0"),
        ({"task": tasks.linear(dims={"B": 0})}, "dimension B is 0"),
    ],
)
def test_an_impossible_comparison_is_refused_before_any_process_starts(arguments, message):
    with pytest.raises(UsageError, match=message):
        compare(**{"task": tasks.linear(), "variants": [Variant("eager")], "progress": _no_child, **arguments})
