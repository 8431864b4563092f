import subprocess
import sys
from types import SimpleNamespace

import pytest

from gnomon.core import process
from gnomon.core.errors import CheckFailed, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.core.stats import ratio_test
from gnomon.sharpen.record import Change, Distance, Verification
from gnomon.sharpen.run import EVALUATE, ratio_between, sharpen
from tests.sharpen.tiny import task

SAME = Distance(1.0, 1.0, 0.0, 4)


def comparison(times, failures=None, clock="cpu", statistic="median"):
    """A Comparison's shape from {name: CPU time per session}; three calls, one an outlier; wall: its square."""
    failures = failures or {}
    variants = [
        SimpleNamespace(
            name=name,
            failure=failures.get(name),
            sessions=[SimpleNamespace(cpu_s=(t, t, 99.0), wall_s=(t * t, t * t, 99.0)) for t in sessions],
        )
        for name, sessions in times.items()
    ]
    ratios = {name: ratio_test(times["eager"], t) for name, t in times.items() if name != "eager" and t}
    return SimpleNamespace(baseline="eager", clock=clock, statistic=statistic, variants=variants, ratios=ratios)


class Child:
    """Stands for core.process.call: gives the outcomes that a test wants and dies where it is told to."""

    def __init__(self, outcomes=None, dies_at=(), dies_early=False):
        self.outcomes, self.dies_at, self.dies_early, self.calls = outcomes or {}, dies_at, dies_early, []

    def __call__(self, target, arguments, *, timeout_s, env, on_progress):
        assert target == EVALUATE
        self.calls.append([one["recipe"] for one in arguments["recipes"]])
        if self.dies_early:
            raise CheckFailed("the model itself is broken")
        results = []
        for one in arguments["recipes"]:
            on_progress(f"recipe {one['recipe']}")
            if one["recipe"] in self.dies_at:
                raise CheckFailed("the process crashed with SIGSEGV")
            outcome = self.outcomes.get(one["recipe"], {"distance": SAME})
            results.append(to_json(Verification(one["recipe"], one["options"], **outcome)))
        return results


class Timer:
    def __init__(self, **times):
        self.times, self.variants = times, []

    def __call__(self, task, variants):
        self.variants = variants
        times = {"eager": [4.0, 4.1, 4.2], "compile": [3.0, 3.1, 3.2], "onnx-fp32": [2.5, 2.6, 2.7],
                 "onnx-int8": [1.0, 1.1, 1.2], "bf16": [8.0, 8.1, 8.2]}  # fmt: skip
        return comparison({v.name: times[v.name] for v in variants})


def run(tmp_path, recipes, child=None, timer=None, **more):
    child, timer = child or Child(), timer or Timer()
    return sharpen(task(), recipes, compare=timer, call=child, artifacts=tmp_path, **{"workers": 1, **more})


def test_all_recipes_that_apply_are_timed_together_with_the_plain_task_first(tmp_path):
    timer = Timer()
    changes, timed = run(tmp_path, ["bf16", "compile", "onnx-int8"], timer=timer)
    assert [v.name for v in timer.variants] == ["eager", "bf16", "compile", "onnx-int8"]
    assert timer.variants[0].prepare is None
    assert timer.variants[1].options == {"recipe": "bf16", "artifacts": str(tmp_path)}
    assert [(c.recipe, c.verdict) for c in changes] == [("bf16", "refused"), ("compile", "kept"), ("onnx-int8", "kept")]
    assert changes[2].speedup is timed.ratios["onnx-int8"]


def test_a_recipe_is_also_measured_against_what_a_user_would_pick_instead(tmp_path):
    changes, _ = run(tmp_path, ["compile", "onnx-fp32", "onnx-int8"])
    by_name = {change.recipe: change for change in changes}
    assert set(by_name["onnx-int8"].against) == {"compile", "onnx-fp32"}
    assert set(by_name["compile"].against) == {"onnx-fp32"}
    assert by_name["onnx-int8"].against["onnx-fp32"].speedup.value == pytest.approx(
        (2.5 / 1.0 * 2.6 / 1.1 * 2.7 / 1.2) ** (1 / 3)
    )


def test_what_does_not_apply_or_fails_is_not_timed(tmp_path):
    timer = Timer()
    outcomes = {"bf16": {"why_not": "no units"}, "compile": {"failure": "it burst"}}
    changes, _ = run(tmp_path, ["bf16", "compile", "onnx-fp32"], Child(outcomes), timer)
    assert [v.name for v in timer.variants] == ["eager", "onnx-fp32"]
    assert [c.verdict for c in changes] == ["not applicable", "failed", "kept"]


def test_nothing_is_timed_when_nothing_applies(tmp_path):
    def never(task, variants):
        raise AssertionError("timed")

    changes, timed = run(tmp_path, ["bf16"], Child({"bf16": {"why_not": "no units"}}), never)
    assert timed is None
    assert [(c.verdict, c.reason) for c in changes] == [("not applicable", "no units")]
    assert run(tmp_path, [], timer=never) == ([], None)


def test_a_recipe_that_takes_the_process_down_is_blamed_and_the_others_are_verified_without_it(tmp_path):
    child = Child(dies_at=("compile", "onnx-int8"))
    changes, _ = run(tmp_path, ["bf16", "compile", "onnx-fp32", "onnx-int8"], child)
    assert child.calls == [
        ["bf16", "compile", "onnx-fp32", "onnx-int8"],
        ["bf16", "onnx-fp32", "onnx-int8"],
        ["bf16", "onnx-fp32"],
    ]
    assert [c.verdict for c in changes] == ["refused", "failed", "kept", "failed"]
    assert "SIGSEGV" in changes[1].reason


def test_recipes_that_compile_are_verified_beside_the_others_and_come_back_in_order(tmp_path):
    child = Child(dies_at=("onnx-fp32",))
    changes, _ = run(tmp_path, ["compile", "bf16", "onnx-fp32", "onnx-int8"], child, workers=2)
    assert [c.recipe for c in changes] == ["compile", "bf16", "onnx-fp32", "onnx-int8"]
    assert [c.verdict for c in changes] == ["kept", "refused", "failed", "kept"]
    assert sorted(child.calls) == [["bf16", "onnx-fp32", "onnx-int8"], ["bf16", "onnx-int8"], ["compile"]]


def test_an_error_of_one_lane_is_raised(tmp_path):
    with pytest.raises(CheckFailed, match="the model itself is broken"):
        run(tmp_path, ["bf16", "compile"], Child(dies_early=True), workers=2)


def test_a_task_that_fails_without_any_recipe_raises(tmp_path):
    with pytest.raises(CheckFailed, match="the model itself is broken"):
        run(tmp_path, ["bf16"], Child(dies_early=True))


def test_a_variant_that_fails_while_it_is_timed_is_failed(tmp_path):
    def compare(task, variants):
        return comparison({"eager": [4.0, 4.1], "bf16": []}, {"bf16": "out of memory"})

    changes, _ = run(tmp_path, ["bf16"], timer=compare)
    assert (changes[0].verdict, changes[0].reason) == ("failed", "while it was timed: out of memory")


def test_options_reach_the_verification_and_the_timing(tmp_path):
    timer, options = Timer(), {"compile": {"mode": "max-autotune"}}
    changes, _ = run(tmp_path, ["compile"], timer=timer, options=options)
    assert timer.variants[1].options["mode"] == "max-autotune"
    assert changes[0].options == {"mode": "max-autotune"}


def test_unknown_and_repeated_recipes_are_refused_before_any_work(tmp_path):
    child = Child()
    with pytest.raises(UsageError, match="Did you mean 'compile'"):
        run(tmp_path, ["bf16", "compiel"], child)
    with pytest.raises(UsageError, match="each recipe once"):
        run(tmp_path, ["bf16", "bf16"], child)
    assert child.calls == []


@pytest.mark.parametrize("statistic", ["median", "fast half"])
def test_ratios_are_of_the_sessions_on_the_clock_and_by_the_statistic_of_the_comparison(statistic):
    times = {"eager": [1.0, 1.0], "a": [2.0, 8.0], "b": [1.0, 1.0]}
    assert ratio_between(comparison(times, statistic=statistic), "a", "b").speedup.value == pytest.approx(4)
    walls = comparison(times, clock="wall", statistic=statistic)
    assert ratio_between(walls, "a", "b").speedup.value == pytest.approx(16)
    assert ratio_between(comparison(times, {"a": "it burst"}), "a", "b") is None
    assert ratio_between(comparison(times), "a", "absent") is None


def test_progress_is_told_in_words(tmp_path):
    told = []
    run(tmp_path, ["bf16"], progress=told.append)
    assert told == ["applying and verifying bf16", "timing bf16 against eager"]


def test_a_real_child_verifies_a_real_recipe_and_its_change_survives_storage(tmp_path):
    def compare(task, variants):
        return comparison({"eager": [4.0, 4.1, 4.2], "bf16": [1.0, 1.1, 1.2]})

    changes, _ = sharpen(task(), ["bf16"], compare=compare, call=process.call, artifacts=tmp_path)
    assert changes[0].verdict == "kept"
    assert 0.999 < changes[0].distance.mean_cosine < 1
    assert from_json(to_json(changes[0]), Change) == changes[0]


def test_the_stage_itself_does_not_import_torch():
    code = "import sys, gnomon.sharpen.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
