"""`pipeline.calibrate` from end to end on a simulated device: what it hides is what forecasts then know."""

import math

import pytest

from gnomon import pipeline
from gnomon.core.errors import NotRunnable, UsageError
from gnomon.devices.device import Device, Quantity
from gnomon.forecast import cpu
from gnomon.forecast.predict import forecast
from gnomon.measure.probes.cost import HostCost
from gnomon.measure.probes.run import Probed
from gnomon.measure.probes.timing import Reading
from gnomon.pipeline import calibrating
from gnomon.store.store import open_store

from .forecast.build import matmul_graph, stream_graph

COST = HostCost(1e-6, 0.5e-6, 1e-6, 4e-6, 6e-6, 9e-6, 12e-6)


def machine(name="simulated") -> Device:
    q = lambda value: Quantity(value, "test")  # noqa: E731
    return Device(
        name=name, vendor="test", kind="cpu", architecture="test", peak_flop_s={"float32": q(1e11)},
        memory_bytes=q(16e9), memory_bandwidth_b_s=q(1e10), units=q(1), cache_bytes=q(3e7), sources={"test": "made up"},
    )  # fmt: skip


class Simulated:
    """Every kernel takes `times` as long as physics says for its class; remembers what it was asked for."""

    def __init__(self, times, reached=1.0, disturbance=1.0):
        self.times, self.reached, self.disturbance, self.asked = times, reached, disturbance, []

    def __call__(self, names, *, device, threads, budget_s, on_progress):
        self.asked = list(names)
        works = {c.name: c.work for c in calibrating._candidates("cpu")}
        readings = []
        for name in names[: math.ceil(self.reached * len(names))]:
            work = works[name]
            seconds = cpu.price(work, machine()).time.value_s * self.times.get(work.category, 1.0) + COST.bare_s
            readings.append(Reading(name, seconds * self.disturbance, 0.02, self.disturbance, 3e-4, 3))
        return Probed(COST, tuple(readings), "made up", {"torch": "2"})


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "results.db"))


def calibrate(store, measure, budget_s=30.0):
    with store.begin("calibrate", {}) as run:
        return pipeline.calibrate("cpu", budget_s, run, target=machine(), measure=measure)


def test_what_a_device_hides_is_found_and_forecasts_use_it(store):
    made = calibrate(store, Simulated({"matmul": 2.0, "elementwise": 0.5}, disturbance=1.0))
    factors = {one.category: one.value for one in made.factors}
    assert factors["matmul"] == pytest.approx(2.0, rel=0.15)
    assert factors["elementwise"] == pytest.approx(0.5, rel=0.15)
    for graph, times in ((matmul_graph(300, 300, 300), 2.0), (stream_graph(10**6), 0.5)):
        plain, known = (forecast(graph, machine(), calibration=c).ops[0].time for c in (None, made))
        assert known.value_s / plain.value_s == pytest.approx(times, rel=0.15)
        assert known.high_s / known.low_s < plain.high_s / plain.low_s


def test_the_choice_covers_the_classes_within_the_budget(store):
    measure = Simulated({})
    made = calibrate(store, measure, budget_s=60.0)
    assert len(measure.asked) == len(set(measure.asked)) == len(made.samples)
    assert len(made.factors) >= 11
    more = Simulated({})
    calibrate(store, more, budget_s=120.0)
    assert len(more.asked) > len(measure.asked)


def test_the_newest_calibration_of_a_device_is_found_in_the_store(store):
    calibrate(store, Simulated({"matmul": 2.0}), budget_s=10.0)
    second = calibrate(store, Simulated({"matmul": 3.0}), budget_s=10.0)
    assert pipeline.stored_calibration(store, machine()) == second
    assert pipeline.stored_calibration(store, machine("another")) is None


def test_samples_say_how_far_from_its_usual_state_the_machine_was(store):
    calm, slow = (calibrate(store, Simulated({}, disturbance=d)) for d in (1.0, 1.61))
    assert {sample.disturbance for sample in calm.samples} == {1.0}
    assert slow.samples[0].disturbance == pytest.approx(1.61)
    assert calm.reference_s > 0


def test_disturbed_and_unreached_kernels_become_warnings(store):
    made = calibrate(store, Simulated({}, reached=0.5, disturbance=1.5))
    assert "were never seen in this machine's usual state" in made.warnings[0]
    assert "chosen kernels were not reached in the budget" in made.warnings[1]


@pytest.mark.parametrize("budget_s", [0.0, 9.99, -1.0, math.nan])
def test_a_budget_that_is_too_small_is_refused_with_the_least(store, budget_s):
    with pytest.raises(UsageError, match="a calibration takes at least 10 s; got a budget of"):
        calibrate(store, Simulated({}), budget_s)


def test_a_gpu_that_is_not_there_cannot_be_calibrated(store):
    with store.begin("calibrate", {}) as run, pytest.raises(NotRunnable, match="no GPU cuda:9"):
        pipeline.calibrate("cuda:9", 60.0, run)
