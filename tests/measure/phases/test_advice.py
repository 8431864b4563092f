"""Advice comes from the cost model where it is sure and from the times elsewhere, and says by how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.measure.phases.advice import advise, order_advice
from gnomon.measure.phases.record import Ratio
from tests.measure.phases.build import balance, characterization, timed

sizes = st.integers(1, 5000)
gains = st.floats(0.1, 10).map(lambda x: Ratio(x, x * 0.95, x * 1.05))


@given(st.integers(1, 10**6), st.integers(1, 10**6), sizes, sizes, st.none() | gains)
def test_the_order_advised_flips_exactly_where_the_cost_model_says(vertices, edges, features, hidden, gain):
    text = order_advice("gcn", "g", vertices, edges, features, hidden, is_linear=True, gain=gain).text
    if features == hidden:
        assert text.startswith("either order")
    else:
        assert text.startswith("combine first" if features > hidden else "aggregate first")


@given(st.integers(1, 10**6), st.integers(1, 10**6), sizes, sizes, st.none() | gains)
def test_combine_first_is_never_advised_for_what_is_not_linear(vertices, edges, features, hidden, gain):
    found = order_advice("gin", "g", vertices, edges, features, hidden, is_linear=False, gain=gain)
    assert "combine" not in found.text
    assert found.text.startswith("aggregate first")
    assert found.gain is None


def texts(*passes, **rest):
    return {(one.about, one.text) for one in advise(characterization(*passes, **rest))}


def both(model="gcn", gain=3.0, widths=(512, 128)):
    return [timed(model=model, order="combine-first", widths=widths, whole=1.0),
            timed(model=model, order="aggregate-first", widths=widths, whole=gain)]  # fmt: skip


def test_the_gain_of_an_order_is_the_one_measured_here():
    expected = "combine first (512 -> 128 features): 3x here, sums over neighbours are 4 times narrower"
    assert texts(*both()) == {("gcn on g", expected)}
    assert texts(*both(gain=4.5)) == {("gcn on g", expected.replace("3x", "4.5x"))}


def test_times_that_contradict_the_cost_model_are_told():
    (found,) = advise(characterization(*both(gain=0.5)))
    assert found.text.endswith("yet 2.00x slower here")
    (found,) = advise(characterization(*both(gain=(0.8, 1.1, 1.3))))
    assert found.text.endswith("too little to be seen in the times here")
    assert found.gain is None


def test_a_widening_layer_aggregates_first_and_its_gain_is_turned_round():
    (found,) = advise(characterization(*both(gain=0.25, widths=(64, 256))))
    assert found.text.startswith("aggregate first (64 -> 256 features): 4x here")
    assert found.gain == pytest.approx(4)


def test_gin_aggregates_first_and_attention_is_left_alone():
    gin = timed(model="gin", order="aggregate-first")
    assert texts(gin, timed(model="gat")) == {
        ("gin on g", "aggregate first (512 -> 128 features): it is not linear, so nothing else is legal")
    }


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (11.0, {"use csr: 11x here, against scatter"}),
        (0.5, {"use scatter: 2x here, against csr"}),
        ((0.9, 1.2, 1.2), set()),
    ],
)
def test_an_implementation_is_advised_when_every_session_shows_it(seconds, expected):
    passes = [timed(model="gat", whole=1.0), timed(model="gat", implementation="scatter", whole=seconds)]
    assert {text for _, text in texts(*passes)} == expected


def test_what_does_not_pay_is_advised_against():
    passes = [timed("fusion", detail="two phases", whole=1.0), timed("fusion", detail="fused", whole=2.0)]
    assert texts(*passes) == {("fusion", "do not fuse the phases in blocks of vertices: 2x slower here")}
    passes = [timed("fusion", detail="two phases", whole=1.0), timed("fusion", detail="fused", whole=(0.9, 1.1, 1.0))]
    assert texts(*passes) == set()


def test_the_best_order_of_vertices_is_advised():
    seconds = {"random": 2.0, "degree": 1.9, "community": 1.0, "breadth-first": 1.5}
    passes = [timed("vertex-order", model="sum", detail=name, whole=s) for name, s in seconds.items()]
    assert texts(*passes) == {("vertex order", "order the vertices by community: 2x here")}


def test_sums_scatters_and_tiles_are_compared_at_their_width():
    passes = [timed("features", implementation=name, widths=(64, 64), whole=s)
              for name, s in [("csr", 2.0), ("scatter", 14.0), ("tiled", 1.0)]]  # fmt: skip
    assert texts(*passes) == {
        ("sums over neighbours", "use csr at 64 features: 7x here"),
        ("long features", "tile 64 features: 2x here"),
    }


def test_sharing_out_edges_is_advised_where_vertices_are_uneven():
    found = advise(
        characterization(balances=[balance(1.66, 1.04), balance(1.02, 1.0, "even"), balance(9.0, 1.0, workers=4)])
    )
    assert [(one.about, one.gain) for one in found] == [("g", None)]
    assert "1.04 times the mean instead of 1.66 (counted)" in found[0].text
