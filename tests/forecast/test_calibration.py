import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.core.records import from_json, to_json
from gnomon.forecast import cpu
from gnomon.forecast.calibration import (
    Calibrated,
    Calibration,
    Fit,
    Host,
    Sample,
    choose,
    covariance,
    factors,
    fit,
)
from gnomon.forecast.predict import forecast
from gnomon.forecast.work import MatmulShape, Work
from gnomon.workload.graph import Op

from .build import device, graph, matmul_graph, stream_graph

MACHINE = device(kind="cpu", name="simulated", cache_bytes=32e6)
HOST = Host(
    bare_s=1e-6, view_s=0.5e-6, page_s=1e-6, inference_s=4e-6, forward_s=6e-6, backward_s=9e-6, optimizer_s=12e-6
)


def product(m, n=256, k=256):
    moved = 4.0 * (m * k + k * n + m * n)
    return Work("matmul", "float32", 2.0 * m * n * k, moved, MatmulShape(1, m, n, k), operator="mm")


def stream(elements, operator="add", category="elementwise"):
    return Work(category, "float32", float(elements), 12.0 * elements, operator=operator)


def sample(work, times, noise=0.01):
    """A kernel that takes `times` as long as predicted, with its dispatch."""
    seconds = times * cpu.price(work, MACHINE).time.value_s + HOST.bare_s
    return Sample(f"{work.operator} {work.moved_bytes:.0f}", work, 0, seconds, noise)


def calibration(samples, **changes):
    found = fit(samples, HOST, MACHINE)
    plain = Calibration(
        device=MACHINE, predictor="physics", measured_at="2026-01-02T03:04:05+00:00", clock="cpu", threads=1,
        allocator="made up", versions={"torch": "2"}, budget_s=60.0, elapsed_s=50.0, host=HOST, samples=tuple(samples),
        factors=factors(samples, found),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def corrected(samples, work):
    """How many times the predicted time a calibration expects of this kernel."""
    return (
        Calibrated(calibration(samples)).prices([work], MACHINE)[0].time.value_s / cpu.price(work, MACHINE).time.value_s
    )


def width(samples, work):
    time = Calibrated(calibration(samples)).prices([work], MACHINE)[0].time
    return time.high_s / time.low_s


def test_without_samples_nothing_is_corrected():
    assert corrected([], product(512)) == pytest.approx(1)


@given(st.floats(0.3, 3.0))
def test_one_sample_moves_its_kernel_part_of_the_way_and_its_relatives_less(times):
    samples = [sample(product(512), times)]
    own, sister, stranger = (abs(math.log(corrected(samples, w))) for w in (product(512), product(4096), stream(10**6)))
    assert stranger <= sister <= own <= abs(math.log(times))


def test_many_samples_become_the_measured_value_and_the_interval_shrinks():
    sizes = (64, 256, 1024, 4096, 16384)
    one, many = [sample(product(1024), 2.0)], [sample(product(m), 2.0) for m in sizes for _ in range(4)]
    assert corrected(many, product(1000)) == pytest.approx(2.0, rel=0.03)
    assert abs(corrected(one, product(1000)) - 2.0) > abs(corrected(many, product(1000)) - 2.0)
    assert width(many, product(1000)) < width(one, product(1000)) < width([], product(1000))


def test_a_factor_that_changes_with_size_is_followed():
    samples = [sample(product(m), times) for m, times in ((64, 3.0), (512, 2.0), (4096, 1.0)) for _ in range(5)]
    found = [corrected(samples, product(m)) for m in (64, 180, 512, 1450, 4096)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(3.0, rel=0.15)
    assert found[-1] == pytest.approx(1.0, rel=0.15)


def test_an_operator_that_was_not_measured_takes_part_in_its_category_s_correction():
    samples = [sample(stream(n, operator), 2.0) for operator in ("add", "mul", "sub", "relu") for n in (10**4, 10**6)]
    assert 1.3 < corrected(samples, stream(10**5, "neg")) < 2.0
    assert 1.0 < corrected(samples, product(512)) < corrected(samples, stream(10**5, "neg"))


def test_nine_in_ten_kernels_of_simulated_devices_lie_in_their_intervals():
    """Devices drawn from the prior: the share that the intervals hold is the stated one."""
    rng, held, all_of_them = np.random.default_rng(0), 0, 0
    works = [product(m, n, k) for m in (8, 64, 512) for n in (64, 1024) for k in (64, 1024)]
    works += [stream(n, operator) for n in (10**4, 10**5, 10**6, 10**7) for operator in ("add", "exp", "mul")]
    root = np.linalg.cholesky(covariance(works, works) + 1e-9 * np.eye(len(works)))
    for _ in range(60):
        truth = root @ rng.standard_normal(len(works)) + 0.07 * rng.standard_normal(len(works))
        known = rng.permutation(len(works))[: rng.integers(1, 16)]
        found = Fit([works[i] for i in known], truth[known], [0.0] * len(known)).correct(works)
        others = np.setdiff1d(np.arange(len(works)), known)
        held += int((np.abs(truth - found.mean) <= 1.645 * found.deviation)[others].sum())
        all_of_them += len(others)
    assert held / all_of_them == pytest.approx(0.9, abs=0.03)


def test_the_fit_is_the_textbook_s_posterior():
    """Rasmussen and Williams, eqs. 2.25 and 2.26, by the explicit inverse."""
    works, ratios, noise = [product(64), product(512), stream(10**6)], np.array([0.3, 0.1, -0.2]), [0.05, 0.1, 0.02]
    asked = [product(200), stream(10**5, "exp")]
    inverse = np.linalg.inv(covariance(works, works) + np.diag(np.square(noise) + 0.07**2))
    cross = covariance(asked, works)
    found = Fit(works, ratios, noise).correct(asked)
    np.testing.assert_allclose(found.mean, cross @ inverse @ ratios)
    variance = np.diag(covariance(asked, asked) - cross @ inverse @ cross.T) + 0.07**2
    np.testing.assert_allclose(found.deviation, np.sqrt(variance))


@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 4096)), min_size=1, max_size=12))
def test_the_prior_is_a_covariance(shapes):
    works = [product(m, n) for m, n in shapes] + [stream(m) for m, _ in shapes]
    matrix = covariance(works, works)
    np.testing.assert_allclose(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_dispatch_is_taken_off_a_sample_and_a_tiny_kernel_counts_little():
    """A kernel that is nearly all dispatch says little: its time is a difference of two that are alike."""
    tiny, large = stream(16), stream(10**7)
    seconds = [3.0 * cpu.price(work, MACHINE).time.value_s + HOST.bare_s for work in (tiny, large)]
    wrong = [Sample("x", work, 0, s, 0.01) for work, s in zip((tiny, large), seconds, strict=True)]
    small, big = (abs(math.log(corrected([one], one.work))) for one in wrong)
    assert small < 0.1 < 0.9 < big


def test_noisy_samples_move_the_correction_less():
    quiet, loud = (corrected([sample(product(512), 2.0, noise)], product(512)) for noise in (0.01, 0.5))
    assert 1 < loud < quiet


def test_the_factors_by_category_tell_value_interval_and_count():
    samples = [sample(product(m), 2.0) for m in (8, 64, 512, 4096)] + [sample(stream(10**6), 0.5)]
    matmul, elementwise = factors(samples, fit(samples, HOST, MACHINE))
    assert (matmul.category, matmul.n, elementwise.category, elementwise.n) == ("matmul", 4, "elementwise", 1)
    assert elementwise.low < elementwise.value < 1 < matmul.value < 2
    assert math.log(matmul.high / matmul.low) < math.log(elementwise.high / elementwise.low)


def test_a_calibrated_forecast_uses_measured_host_times_and_says_so():
    made = calibration([sample(stream(10**6), 2.0)])
    view = Op("aten.view.default", "", "", "forward", "view", (0,), (0,), 0.0, 0.0, 0.0)
    small = stream_graph(elements=16, count=10)
    result = forecast(graph(*small.ops, *[view] * 4, tensors=small.tensors), MACHINE, calibration=made)
    work_s = sum(op.time.value_s for op in result.ops)
    assert result.total.value_s == pytest.approx(work_s + 10 * HOST.inference_s + 4 * HOST.view_s)
    assert result.predictor.endswith("+calibrated")
    assert result.calibration == made.title
    assert made.title.startswith("2026-01-02 ")


def test_each_phase_of_a_training_step_has_its_own_host_time():
    calibrated = Calibrated(calibration([]))
    assert calibrated.dispatch(["forward", "backward", "optimizer"], "training").value == pytest.approx(9e-6)
    assert calibrated.dispatch(["forward"], "inference").value == HOST.inference_s


def test_a_calibration_narrows_the_interval_of_the_step():
    plain = forecast(matmul_graph(layers=3), MACHINE).total
    made = calibration([sample(product(m, m, m), 1.5) for m in (1024, 2048, 4096, 8192)])
    narrow = forecast(matmul_graph(layers=3), MACHINE, calibration=made).total
    assert narrow.high_s / narrow.low_s < plain.high_s / plain.low_s
    assert narrow.low_s < narrow.value_s < narrow.high_s


def test_a_calibration_of_another_device_is_refused_by_name():
    other = device(kind="cpu", name="another")
    with pytest.raises(UsageError, match="was measured on 'simulated'; it says nothing about 'another'"):
        forecast(matmul_graph(), other, calibration=calibration([]))


def test_peaks_measured_again_do_not_change_what_the_calibration_predicts():
    """Samples were compared with the peaks of their day; pricing with other peaks would correct twice."""
    made = calibration([sample(product(512), 2.0)])
    again = device(kind="cpu", name="simulated", cache_bytes=32e6, memory_bandwidth_b_s=2e12)
    first, second = (Calibrated(made).prices([product(512)], d) for d in (MACHINE, again))
    assert first == second


def test_a_calibration_survives_the_store():
    made = calibration([sample(product(512), 2.0), sample(stream(100), 1.0)])
    assert from_json(to_json(made), Calibration) == made


def test_the_choice_covers_before_it_repeats_and_keeps_to_the_budget():
    works = [product(m) for m in (500, 510, 520, 530)] + [stream(10**6), stream(10**6, "exp")]
    chosen = choose(works, [1.0] * len(works), 3.0)
    assert len(chosen) == 3
    assert len([i for i in chosen if i < 4]) == 1


@given(st.lists(st.floats(0.1, 5.0), min_size=6, max_size=6), st.floats(0.1, 20.0))
def test_no_choice_costs_more_than_the_budget_and_more_budget_takes_away_no_certainty(costs, budget):
    works = [product(m) for m in (8, 512, 4096)] + [stream(n) for n in (10**3, 10**5, 10**7)]

    def left(chosen):
        return float(
            Fit([works[i] for i in chosen], [0.0] * len(chosen), [0.0] * len(chosen)).correct(works).deviation.sum()
        )

    chosen = choose(works, costs, budget)
    assert len(set(chosen)) == len(chosen)
    assert sum(costs[i] for i in chosen) <= budget * (1 + 1e-9)
    assert left(chosen) <= left([]) + 1e-12


def test_a_cheap_kernel_is_chosen_before_a_dear_one_that_tells_as_much():
    works = [product(512), product(513)]
    assert choose(works, [10.0, 1.0], 10.0)[0] == 1
