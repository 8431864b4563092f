import math
import statistics
from pathlib import Path

import pytest
import torch

from gnomon.core.errors import NotRunnable, UnknownName, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.measure.record import Measurement
from gnomon.measure.run import measure
from tests.measure import tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _children_find_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def measured(_children_find_the_tests):
    """One real measurement with every level: four child processes."""
    told = []
    levels = ("operator", "model", "layer", "kernel", "application", "hardware")
    return measure(tasks.linear(width=64), levels=levels, sessions=1, progress=told.append), told


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
    assert [run.level for run in measurement.levels] == [
        "model", "application", "layer", "operator", "kernel", "hardware",
    ]  # fmt: skip
    for run in measurement.levels[1:]:
        assert run.overhead.value > -0.5
        assert (run.overhead.n, run.overhead.low, run.overhead.high) == (1, None, None)  # one session bounds nothing
    assert told[0] == "eager: session 1 of 1, model, application, layer, operator, kernel, hardware"


def test_layers_operators_and_spans_come_from_their_levels(measured):
    measurement, _ = measured
    assert [(layer.path, layer.type, layer.output_shape) for layer in measurement.layers] == [("", "Linear", (4, 64))]
    assert "aten.addmm.default" in {operator.name for operator in measurement.operators}
    assert {span.level for span in measurement.spans} == {"application", "model", "layer", "operator", "kernel"}
    assert measurement.operators_cover > 0
    assert "of the step's CPU time" in measurement.rest
    assert "us per operator call" in measurement.rest


def test_a_level_that_is_not_there_becomes_a_warning():
    measurement = measure(
        tasks.linear(), levels=("layer", "kernel"), sessions=1, prepare=f"{tasks.VARIANTS}:other_engine"
    )
    reason = "an engine other than torch runs the model, so there are no modules to hook"
    assert f"level 'layer' is not available: {reason}" in measurement.warnings
    assert f"level 'kernel' is not available: {reason}" in measurement.warnings
    assert [run.level for run in measurement.levels] == ["model"]


def test_the_merged_call_nests_and_the_model_in_it_is_the_untraced_one(measured):
    measurement, _ = measured
    spans, inside = measurement.spans, [0.0] * len(measurement.spans)
    assert [span.name for span in spans if span.parent is None] == ["application of tiny"]
    for span in spans:
        if span.parent is not None:
            above = spans[span.parent]
            inside[span.parent] += span.wall_s
            assert above.start_s <= span.start_s + 1e-9
            assert span.start_s + span.wall_s <= above.start_s + above.wall_s + 1e-9
        assert span.attributes["run"] == span.level
    assert all(total <= span.wall_s + 1e-9 for total, span in zip(inside, spans, strict=True))
    (model,) = [span for span in spans if span.level == "model"]
    assert model.wall_s in measurement.levels[0].sessions[0].wall_s


def test_what_a_user_waits_for_has_its_parts(measured):
    stages = {(stage.kind, stage.name): stage.wall_s.value for stage in measured[0].stages}
    assert {name for kind, name in stages if kind == "start"} == {"import", "build", "first call"}
    parts = [stages["call", name] for name in ("read", "preprocess", "run")]
    assert all(part > 0 for part in parts)
    assert stages["call", "call"] > 0


def test_every_counter_has_a_value_or_a_reason(measured):
    for counter in measured[0].counters:
        assert (counter.value is None) == bool(counter.unavailable)
        assert counter.source == "perf"


def test_a_measurement_survives_json(measured):
    assert from_json(to_json(measured[0]), Measurement) == measured[0]


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


@pytest.mark.slow
def test_levels_of_a_transformer_in_fresh_processes_agree():
    measurement = measure(tasks.bert(layers=4, width=256, batch=8, length=64), sessions=2)
    root = next(layer for layer in measurement.layers if layer.path == "")
    model = statistics.median(t for s in measurement.levels[0].sessions for t in s.cpu_s)
    assert math.isclose(root.cpu_s, model, rel_tol=0.3)
    assert 0.75 < measurement.operators_cover < 1.2
    for run in measurement.levels[1:]:
        assert run.overhead.low <= run.overhead.value <= run.overhead.high
