from dataclasses import replace

import pytest
import torch

from gnomon.core.errors import CheckFailed, NotRunnable, UsageError
from gnomon.core.records import structure, to_json
from gnomon.measure import session
from gnomon.measure.levels.trace import Summary
from gnomon.measure.record import Session
from gnomon.spec.task import Output
from tests.measure import tasks


def request(task, *variants, levels=(), calls=5):
    """What the parent sends; each variant a name of tests.measure.tasks or (name, options)."""
    rows = []
    for variant in variants or ("eager",):
        name, options = variant if isinstance(variant, tuple) else (variant, {})
        prepare = None if name == "eager" else f"{tasks.VARIANTS}:{name}"
        rows.append({"name": name, "prepare": prepare, "options": options})
    return {
        "task": to_json(task), "variants": rows, "levels": list(levels), "calls": calls, "traced_calls": calls,
        "budget_s": 0.5, "warmup_s": 0.5, "seed": 0,
    }  # fmt: skip


def test_a_session_holds_what_happened_before_and_one_number_per_call():
    result = session.times(request(tasks.linear(), calls=7))
    one = structure(Session, result["variants"][0]["session"])
    assert len(one.wall_s) == len(one.cpu_s) == len(one.page_faults) == 7
    assert min(one.wall_s) > 0
    assert one.warmup_calls >= 8
    assert one.import_s >= 0
    assert one.build_s > 0
    assert one.first_call_s > 0
    assert 10 * 2**20 < one.peak_rss_bytes < 2**40
    assert result["allocator"]


def test_the_same_seed_gives_the_same_outputs_and_another_seed_others():
    def digest(**changes):
        return session.times(request(tasks.linear(**changes)))["variants"][0]["digest"]

    assert digest() == digest()
    assert digest() != digest(seed=1)


def test_a_variant_that_fails_is_recorded_and_the_others_are_timed():
    result = session.times(request(tasks.linear(), "eager", "nan", "raises", "twice"))
    failures = {one["name"]: one["failure"] for one in result["variants"]}
    assert failures["eager"] is failures["twice"] is None
    assert "output 0 of shape (4, 8) holds 4 NaN of 32 values" in failures["nan"]
    assert failures["raises"].startswith("ArithmeticError: the recipe met a shape that it does not know (tasks.py:")
    lengths = {one["name"]: len(one["session"]["wall_s"]) for one in result["variants"] if one["session"]}
    assert lengths == {"eager": 5, "twice": 5}


def test_a_variant_that_fails_while_it_is_timed_leaves_whole_rounds_of_the_others():
    arguments = request(tasks.linear(), "eager", ("expires", {"seconds": 0.6}), "twice", calls=100_000)
    by_name = {one["name"]: one for one in session.times(arguments)["variants"]}
    assert "out of luck" in by_name["expires"]["failure"]
    assert by_name["expires"]["session"] is None
    assert len(by_name["eager"]["session"]["wall_s"]) == len(by_name["twice"]["session"]["wall_s"]) >= 3


@pytest.mark.parametrize(
    ("variant", "error", "message"),
    [
        ("nan", CheckFailed, r"nan: output 0 of shape \(4, 8\) holds 4 NaN of 32 values. Times of a wrong result"),
        ("raises", ArithmeticError, "the recipe met a shape that it does not know"),
    ],
)
def test_a_variant_on_its_own_raises_its_error(variant, error, message):
    with pytest.raises(error, match=message):
        session.times(request(tasks.linear(), variant))


def test_outputs_other_than_declared_are_not_timed_unless_a_recipe_made_them():
    task = tasks.linear()
    task = replace(task, model=replace(task.model, outputs=(Output("y", "float32", ("B", 9)),)))
    with pytest.raises(CheckFailed, match=r"'y' is declared \[B, 9\]: axis 1: wanted 9, got 8"):
        session.times(request(task, "eager"))


def test_a_preparer_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"there is no 'tests\.measure\.tasks:nothing_of_the_kind'"):
        session.times(request(tasks.linear(), "nothing_of_the_kind"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_absent_is_found_out_before_any_work():
    broken = tasks.linear(device="cuda:0", dims={})  # building this one would raise something else
    with pytest.raises(NotRunnable, match=r"wants device 'cuda:0', and torch .* sees no CUDA device here"):
        session.times(request(broken))


def test_a_device_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="got device 'tpu'"):
        session.times(request(tasks.linear(device="tpu")))


@pytest.mark.parametrize("level", ["layer", "operator"])
def test_a_traced_session_pairs_traced_with_untraced_calls(level):
    result = session.levels(request(tasks.bert(), levels=[level]))["levels"][level]
    traced, untraced = structure(Session, result["session"]), structure(Session, result["untraced"])
    assert len(traced.wall_s) == len(untraced.wall_s) == 5
    summary = structure(Summary, result["summary"])
    assert summary.spans[0].level == "model"
    assert bool(summary.layers) == (level == "layer")
    assert bool(summary.operators) == (level == "operator")
    assert max(s.start_s + s.wall_s for s in summary.spans) <= summary.spans[0].wall_s + 1e-9


@pytest.mark.parametrize(
    ("variant", "level", "reason"),
    [
        ("other_engine", "layer", "an engine other than torch runs the model"),
        ("other_engine", "operator", "an engine other than torch runs the model"),
        ("other_engine", "kernel", "an engine other than torch runs the model"),
    ],
)
def test_a_level_that_cannot_be_traced_says_why(variant, level, reason):
    assert reason in session.levels(request(tasks.linear(), variant, levels=[level]))["levels"][level]["unavailable"]


def test_no_tracer_is_there_while_a_shallower_level_is_timed():
    """The calls of a level run the model as it was: hooks and modes are in place inside traced calls only."""
    tasks.SEEN.clear()
    session.levels(request(tasks.bert(), "watched", levels=["layer", "operator"], calls=3))
    seen = list(tasks.SEEN)
    untraced = [hooks for hooks, modes in seen if not hooks and not modes]
    first_traced = next(i for i, (hooks, modes) in enumerate(seen) if hooks or modes)
    assert first_traced >= 3, "the model level comes first"
    assert len(untraced) > 6
    assert any(hooks for hooks, _ in seen)
    assert any(modes for _, modes in seen)


def test_training_steps_are_timed_and_change_the_weights():
    result = session.times(request(tasks.training(), calls=3))
    assert len(result["variants"][0]["session"]["wall_s"]) == 3
