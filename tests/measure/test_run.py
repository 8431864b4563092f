import math
import statistics
from pathlib import Path

import pytest
import torch

from gnomon.core.errors import CheckFailed, NotRunnable, UnknownName, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.core.stats import ratio_test
from gnomon.measure.child import Variant
from gnomon.measure.compare import compare
from gnomon.measure.record import Comparison, Measurement
from gnomon.measure.run import measure
from tests.measure import tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _children_find_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def _variant(name, **options):
    return Variant(name, f"{tasks.VARIANTS}:{name}", options)


@pytest.fixture(scope="module")
def measured(_children_find_the_tests):
    """One real measurement with every level: four child processes."""
    told = []
    levels = ("operator", "model", "layer", "kernel")
    return measure(tasks.linear(width=64), levels=levels, sessions=1, progress=told.append), told


@pytest.fixture(scope="module")
def compared(_children_find_the_tests):
    """Real sessions of five variants, of which one takes the whole process down and one returns NaN."""
    variants = [Variant("eager"), _variant("twice", times=3), _variant("crashes"), _variant("nan"), _variant("prints")]
    task = tasks.linear(width=256)
    return compare(task, variants, sessions=2, calls=9)


def test_a_measurement_says_what_where_and_how_fast(measured):
    measurement, _ = measured
    assert (measurement.task, measurement.variant, measurement.mode, measurement.batch) == (
        "tiny",
        "eager",
        "inference",
        4,
    )
    assert set(measurement.latency) == set(measurement.cpu_latency) == {"p50", "p90", "p99", "mean", "trimmed_mean"}
    assert measurement.latency["p50"].value <= measurement.latency["p90"].value <= measurement.latency["p99"].value
    assert measurement.throughput_per_s * measurement.latency["mean"].value == pytest.approx(4)
    environment = measurement.environment
    assert environment.packages["torch"] == torch.__version__
    assert environment.threads == 1
    assert environment.machine["cpus"] >= 1
    assert environment.allocator
    assert environment.started_at.endswith("+00:00")


def test_latencies_are_those_of_the_untraced_run(measured):
    measurement, _ = measured
    (model,) = [run for run in measurement.levels if run.level == "model"]
    assert model.overhead is None
    calls = [t for session in model.sessions for t in session.wall_s]
    assert measurement.latency["mean"].value == pytest.approx(statistics.fmean(calls))


def test_each_level_has_its_own_run_with_its_overhead(measured):
    measurement, told = measured
    assert [run.level for run in measurement.levels] == ["model", "layer", "operator"]
    for run in measurement.levels[1:]:
        assert run.overhead.value > -0.5
        assert (run.overhead.n, run.overhead.low, run.overhead.high) == (1, None, None)  # one session bounds nothing
    assert told[0] == "eager: session 1 of 1, model, layer, operator, kernel"


def test_layers_operators_and_spans_come_from_their_levels(measured):
    measurement, _ = measured
    assert [(layer.path, layer.type, layer.output_shape) for layer in measurement.layers] == [("", "Linear", (4, 64))]
    assert "aten.addmm.default" in {operator.name for operator in measurement.operators}
    assert {span.level for span in measurement.spans} == {"model", "layer", "operator"}
    assert measurement.operators_cover > 0
    assert "of the step's CPU time" in measurement.rest
    assert "us per operator call" in measurement.rest


def test_a_level_that_is_not_there_becomes_a_warning(measured):
    assert any("level 'kernel' is not available: kernels are seen on CUDA" in text for text in measured[0].warnings)


def test_measurement_and_comparison_survive_json(measured, compared):
    assert from_json(to_json(measured[0]), Measurement) == measured[0]
    assert from_json(to_json(compared), Comparison) == compared


def test_a_slower_variant_is_found_slower_by_about_its_factor(compared):
    ratio = compared.ratios["twice"]
    assert 0.15 < ratio.speedup.value < 0.75  # three products instead of one
    times = {one.name: [statistics.median(session.cpu_s) for session in one.sessions] for one in compared.variants}
    assert ratio == ratio_test(times["eager"], times["twice"])


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


def test_a_measurement_that_takes_too_long_is_stopped():
    quick = tasks.Protocol(sessions=1, calls=5, warmup_s=1.0, timeout_s=0.4)
    with pytest.raises(NotRunnable, match=r"gnomon\.measure\.session:levels did not end within 400 ms"):
        measure(tasks.linear(protocol=quick), levels=("model",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_absent_is_not_runnable():
    with pytest.raises(NotRunnable, match="sees no CUDA device here"):
        measure(tasks.linear(device="cuda:0"), sessions=1)


def _no_child(text):
    raise AssertionError(f"a request that is wrong must be refused before a process starts; got {text}")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"task": tasks.linear(dims={"B": 0})},
            UsageError,
            "dimension B is 0; a measurement needs a size of at least 1",
        ),
        ({"task": tasks.linear(threads=0)}, UsageError, "threads is 0; wanted at least 1"),
        ({"sessions": 0}, UsageError, "sessions is 0; wanted at least 1"),
        ({"levels": ("modle",)}, UnknownName, "no level is called 'modle'. Did you mean 'model'"),
    ],
)
def test_an_impossible_measurement_is_refused_before_any_process_starts(arguments, error, message):
    with pytest.raises(error, match=message):
        measure(**{"task": tasks.linear(), "progress": _no_child, **arguments})


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


@pytest.mark.slow
def test_levels_of_a_transformer_in_fresh_processes_agree():
    measurement = measure(tasks.bert(layers=4, width=256, batch=8, length=64), sessions=2)
    root = next(layer for layer in measurement.layers if layer.path == "")
    model = statistics.median(t for s in measurement.levels[0].sessions for t in s.cpu_s)
    assert math.isclose(root.cpu_s, model, rel_tol=0.3)
    assert 0.75 < measurement.operators_cover < 1.2
    for run in measurement.levels[1:]:
        assert run.overhead.low <= run.overhead.value <= run.overhead.high
