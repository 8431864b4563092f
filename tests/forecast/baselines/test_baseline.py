import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.forecast.baselines.roofline import Roofline
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import PREDICTORS
from gnomon.forecast.work import works

from ..build import device, matmul_graph, stream_graph


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(1, 20000))
def test_the_roofline_is_the_slower_of_arithmetic_and_traffic(m, n, k):
    (price,) = Roofline().prices(works(matmul_graph(m, n, k)), device())
    wanted = max(2.0 * m * n * k / 10e12, 4.0 * (m * k + k * n + m * n) / 1e12)
    assert price.time.value_s == pytest.approx(wanted, rel=1e-12)


def test_a_baseline_states_no_interval():
    made = forecast(stream_graph(), device(), predictor=Roofline())
    assert [(op.time.low_s, op.time.high_s) for op in made.ops] == [(op.time.value_s,) * 2 for op in made.ops]
    assert made.predictor == "roofline-1"


def test_a_baseline_refuses_a_cpu_and_names_who_does_not():
    cpu = device(kind="cpu")
    with pytest.raises(UsageError, match=r"roofline-1 prices GPUs; round is a cpu\. Take .*: gnomon or physics"):
        forecast(stream_graph(), cpu, predictor=Roofline())


def test_no_physics_of_ours_undercuts_the_roofline_baseline():
    made = works(matmul_graph()) + works(stream_graph())
    ours, bound = PREDICTORS.get("physics")().prices(made, device()), Roofline().prices(made, device())
    assert all(a.time.value_s > b.time.value_s for a, b in zip(ours, bound, strict=True))


def test_the_baselines_are_registered_by_name():
    named = {name: PREDICTORS.get(name).name for name in PREDICTORS}
    assert {name: made.rsplit("-", 1)[0] for name, made in named.items()} == {name: name for name in PREDICTORS}
