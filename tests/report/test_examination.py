import dataclasses

import pytest

from gnomon.core.stats import Interval, RatioTest
from gnomon.forecast.record import Estimate
from gnomon.report.examination import faults_per_call, headlines, machine, median_of, quality_cost, sizes

from .example import DEVICE


def _without(examination, **parts):
    return dataclasses.replace(examination, **parts)


def _speed(value):
    return RatioTest(Interval(value, value - 0.1, value + 0.1, 0.95, 5), 1.05, "faster")


def test_the_best_recipe_is_the_fastest_that_was_kept(examination):
    slow, fast, refused = (
        dataclasses.replace(examination.changes[0], recipe=name, verdict=verdict, speedup=_speed(speed))
        for name, verdict, speed in (("slow", "kept", 1.2), ("fast", "kept", 1.9), ("wrong", "refused", 9.0))
    )
    assert _without(examination, changes=(slow, refused, fast)).best_change() is fast
    assert _without(examination, changes=(refused,)).best_change() is None


def test_devices_that_do_not_fit_rank_last_and_are_never_the_fastest(examination):
    quick = dataclasses.replace(examination.forecasts[1], device="Tiny", fits=False, total=Estimate(1e-9, 1e-10, 1e-8))
    e = _without(examination, forecasts=(quick, *examination.forecasts))
    assert e.ranked_forecasts()[-1].device == "Tiny"
    assert e.fastest_forecast().device != "Tiny"
    assert _without(examination, forecasts=(quick,)).fastest_forecast() is None


def test_ranked_forecasts_are_sorted_by_time(examination):
    values = [f.total.value_s for f in examination.ranked_forecasts()]
    assert values == sorted(values)
    assert len(values) == len(examination.forecasts)


def test_this_machine_is_found_among_the_forecasts_and_is_no_other_device(examination):
    assert examination.here().device == DEVICE
    alone = _without(examination, forecasts=(examination.here(),))
    assert alone.fastest_forecast() is None
    assert headlines(alone)[-1] == "No other device was forecast."


def test_headlines_carry_intervals_baseline_quality_and_device(examination):
    latency, where, recipe, elsewhere = headlines(examination)
    assert latency.startswith("One call of sentence-embedding (batch 8, L = 64) takes ")
    assert f"on {DEVICE} with 1 thread: the median over 5 fresh processes." in latency
    assert "goes into matrix products. The nearest limit is arithmetic" in where
    assert "as fast as eager" in recipe
    assert "spearman 0.8203 → 0.8171, mean cosine 0.9912" in recipe
    assert "Of 20 other devices" in elsewhere
    assert "cannot be told apart from it" in elsewhere
    assert all("[" in sentence for sentence in (latency, recipe, elsewhere))


def test_a_clear_winner_is_told_apart(examination):
    winner = dataclasses.replace(examination.forecasts[1], device="Sun", total=Estimate(1e-9, 5e-10, 2e-9))
    sentence = headlines(_without(examination, forecasts=(*examination.forecasts, winner)))[-1]
    assert "Sun is forecast to be fastest" in sentence
    assert "told apart" not in sentence


def test_threads_are_said_once(examination):
    assert machine(examination) == f"{DEVICE} with 1 thread"
    named = dataclasses.replace(examination.device, name="Xeon (1 thread, measured)")
    assert machine(_without(examination, device=named)) == "Xeon (1 thread, measured)"


def test_what_was_not_done_is_said(examination):
    measurement = dataclasses.replace(examination.measurement, latency={}, operators=())
    e = _without(examination, measurement=measurement, changes=(), forecasts=(), comparison=None)
    assert headlines(e) == (
        f"The latency of sentence-embedding (batch 8, L = 64) was not measured on {DEVICE}.",
        "Where the time goes inside the task was not measured.",
        "No recipe to make it faster was tried.",
        "No other device was forecast.",
    )


def test_refused_recipes_are_counted_by_verdict(examination):
    kept_none = tuple(c for c in examination.changes if c.verdict != "kept")
    sentence = headlines(_without(examination, changes=kept_none))[2]
    assert sentence == "No recipe was kept: of 3 recipes tried, 2 refused, 1 not applicable."


def test_shaky_sessions_are_warned_of_once(examination):
    run = examination.level("model")
    shaky = dataclasses.replace(run.sessions[0], is_stable=False)
    levels = (dataclasses.replace(run, sessions=(shaky, *run.sessions[1:])), *examination.measurement.levels[1:])
    measurement = dataclasses.replace(examination.measurement, levels=levels, warnings=("busy machine",))
    e = _without(examination, measurement=measurement, warnings=("busy machine",))
    assert e.all_warnings() == (
        "busy machine",
        "1 of 5 sessions were still getting faster or slower after warm-up.",
    )
    assert examination.all_warnings() == ()


def test_quality_that_was_not_measured_is_not_blank(examination):
    change = dataclasses.replace(examination.changes[0], quality_after={}, distance=None)
    assert quality_cost(change) == "spearman 0.8203 → not measured"
    assert quality_cost(dataclasses.replace(change, quality_before={})) == "quality not measured"


def test_cold_start_and_faults_without_a_run_are_not_measured(examination):
    assert str(median_of(None, "build_s")) == "not measured"
    assert str(median_of(examination.level("model"), "build_s")) == "420 ms [420, 420]"
    assert faults_per_call(None) is None
    assert faults_per_call(examination.level("model")) == pytest.approx(1.5, abs=0.5)


def test_sizes_name_every_dimension():
    assert sizes({"B": 8, "L": 64, "heads": 12}, 8) == "batch 8, L = 64, heads = 12"
