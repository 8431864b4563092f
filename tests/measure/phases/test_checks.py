"""Each statement against times that hide it, hide its opposite, or disagree between sessions."""

import pytest

from gnomon.measure.phases.checks import check
from tests.measure.phases.build import balance, characterization, locality, reduced, timed

KEYS = {
    "dominates", "memory-bound", "attained", "poor-reuse", "evicts", "linear", "lanes", "as-an-mlp", "phase-order",
    "no-gain", "by-destination", "sort-edges", "reorder", "degree-order", "pin", "tile", "fuse", "balance", "sample",
    "batch", "two-engines", "larger-cache", "atomic-free", "dram",
}  # fmt: skip


def one(key, *passes, **rest):
    (found,) = [c for c in check(characterization(*passes, **rest)) if c.key == key]
    return found


def pair(group, slow, fast, seconds, **fields):
    """Two passes: `slow` takes as many times longer than `fast` as `seconds` says, session by session."""
    return [
        timed(group, detail=slow, whole=seconds, **fields),
        timed(group, detail=fast, whole=1.0, **fields),
    ]


def test_every_statement_is_judged_and_nothing_measured_is_nothing_seen():
    found = check(characterization())
    assert {c.key for c in found} == KEYS
    assert {c.verdict for c in found} == {"cannot be seen here"}
    assert [c.kind for c in found] == sorted((c.kind for c in found), key=["finding", "software", "hardware"].index)


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(2.0, "holds"), (0.5, "does not hold"), (1.01, "does not hold"), ((0.8, 1.2, 1.2), "cannot be seen here")],
)
@pytest.mark.parametrize(
    ("key", "group", "slow", "fast"),
    [
        ("fuse", "fusion", "two phases", "fused"),
        ("sample", "fan-out", "all neighbours", "fan-out 10"),
        ("batch", "batch", "one large graph", "small graphs"),
        ("reorder", "vertex-order", "random", "community"),
    ],
)
def test_a_gain_holds_when_every_session_shows_it(key, group, slow, fast, seconds, verdict):
    found = one(key, *pair(group, slow, fast, seconds))
    assert found.verdict == verdict
    expected = seconds if isinstance(seconds, float) else 1.2
    assert found.values["ratio"] == pytest.approx(expected)
    assert f"{expected:.3g} times" in found.evidence


def test_reordering_tells_the_simulated_hits_too():
    hits = [locality("communities", "random"), locality("communities", "community", lru=(0.7, 0.71, 0.75))]
    found = one("reorder", *pair("vertex-order", "random", "community", 2.0), localities=hits)
    assert found.evidence.endswith("simulated hits of 1000 rows go from 20.0% to 71.0%")


def test_a_scatter_of_sorted_edges_is_compared_with_one_of_shuffled_edges():
    passes = pair("vertex-order", "edges shuffled", "random", 1.5, implementation="scatter")
    assert one("sort-edges", *passes).verdict == "holds"


@pytest.mark.parametrize(("share", "verdict"), [(0.8, "holds"), (0.4, "does not hold")])
def test_aggregation_dominates_where_it_takes_most_of_the_densest_graph(share, verdict):
    passes = [
        timed("degree", detail="mean degree 2", edges=2000, aggregation=0.1, combination=0.9),
        timed("degree", detail="mean degree 32", edges=32_000, aggregation=share, combination=1 - share),
    ]
    found = one("dominates", *passes)
    assert found.verdict == verdict
    assert f"10% at mean degree 2, {share:.0%} at mean degree 32" in found.evidence


def orders(features, hidden, gain):
    fields = {"widths": (features, hidden), "group": "widths"}
    return [timed(order="aggregate-first", whole=gain, **fields), timed(order="combine-first", whole=1.0, **fields)]


@pytest.mark.parametrize(("gain", "verdict"), [(3.0, "holds"), (0.9, "does not hold")])
def test_combine_first_is_judged_where_layers_get_much_narrower(gain, verdict):
    found = one("phase-order", *orders(512, 128, gain), *orders(128, 128, 1.0), *orders(256, 128, 0.5))
    assert found.verdict == verdict
    assert found.values["512 -> 128"] == pytest.approx(gain)


@pytest.mark.parametrize(("gain", "verdict"), [(1.1, "holds"), (2.0, "does not hold"), (0.5, "does not hold")])
def test_no_gain_is_judged_where_layers_keep_their_width(gain, verdict):
    assert one("no-gain", *orders(64, 64, gain), *orders(512, 128, 9.0)).verdict == verdict


def test_csr_is_compared_with_a_scatter_of_the_same_width():
    passes = [
        timed("features", implementation=name, widths=(width, width), whole=seconds)
        for name, width, seconds in [("csr", 16, 1.0), ("scatter", 16, 11.0), ("csr", 64, 2.0), ("scatter", 64, 12.0)]
    ]
    found = one("by-destination", *passes)
    assert found.verdict == "holds"
    assert found.values == pytest.approx({"16": 11.0, "64": 6.0})
    assert one("by-destination", *passes[:1]).verdict == "cannot be seen here"


@pytest.mark.parametrize(("exponent", "verdict"), [(1.0, "holds"), (0.3, "does not hold"), (2.0, "does not hold")])
def test_growth_with_the_width_is_the_slope_of_the_logarithms(exponent, verdict):
    sums = [timed("features", widths=(f, f), whole=f**exponent) for f in (16, 64, 256, 1024)]
    found = one("linear", *sums)
    assert found.verdict == verdict
    assert found.values["exponent"] == pytest.approx(exponent)


def test_a_number_per_edge_is_compared_with_one_feature_of_a_sum():
    passes = [timed("classic", model="pagerank", widths=(1, 1), whole=1.0),
              timed("classic", model="sum", widths=(128, 128), whole=16.0)]  # fmt: skip
    found = one("lanes", *passes)
    assert (found.verdict, found.values["ratio"]) == ("holds", pytest.approx(8.0))


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "holds"), (3.0, "does not hold")])
def test_combination_is_compared_with_a_linear_layer(seconds, verdict):
    passes = [timed("classic", model="gcn", aggregation=9.0, combination=seconds),
              timed("classic", model="mlp", whole=1.0)]  # fmt: skip
    assert one("as-an-mlp", *passes).verdict == verdict


def test_intensities_are_held_against_the_ridge_of_this_machine():
    found = one("memory-bound", timed(widths=(512, 128)))
    assert found.values["ridge"] == 10
    assert found.values["aggregation"] < 0.5
    assert found.verdict == "holds"
    assert one("memory-bound", timed(widths=(512, 8))).verdict == "does not hold"  # too small a product


def test_rates_are_held_against_the_peak():
    found = one("attained", timed(aggregation=1.0, combination=0.002))
    assert found.values["combination"] == pytest.approx(2 * 1000 * 512 * 128 / 0.002 / 1e11)
    assert found.verdict == "holds"
    assert one("attained", timed(aggregation=1e-4, combination=1.0)).verdict == "does not hold"


@pytest.mark.parametrize(("hit", "verdict"), [(0.2, "holds"), (0.9, "does not hold")])
def test_reuse_is_judged_at_the_size_of_the_cache(hit, verdict):
    assert one("poor-reuse", localities=[locality(lru=(0.1, hit, 0.95))]).verdict == verdict


def test_longer_rows_are_looked_up_at_fewer_of_them():
    sums = [timed("features", widths=(width, width)) for width in (32, 512)]
    found = one("evicts", *sums, localities=[locality()])
    assert found.values == {"short": 0.4, "long": 0.1}
    assert found.verdict == "holds"


def test_pinning_must_win_at_every_capacity():
    assert one("pin", localities=[locality()]).verdict == "holds"
    assert one("pin", localities=[locality(pinned=(0.05, 0.3, 0.6))]).verdict == "cannot be seen here"
    assert one("pin", localities=[locality(pinned=(0.05, 0.1, 0.3))]).verdict == "does not hold"


def test_edges_are_shared_out_better_when_no_graph_gets_worse():
    assert one("balance", balances=[balance(2.0, 1.1), balance(1.0, 1.0)]).verdict == "holds"
    assert one("balance", balances=[balance(2.0, 1.1), balance(1.0, 1.5)]).verdict == "does not hold"
    assert one("balance", balances=[balance(1.0, 1.0)]).verdict == "does not hold"


def test_what_hardware_would_do_is_counted_and_not_seen():
    found = one("atomic-free", reductions=[reduced(100, 80, 9, "dense"), reduced(100, 10, 2)])
    assert found.verdict == "cannot be seen here"
    assert "80.0% of dense's 100 scattered additions" in found.evidence
    engines = one("two-engines", timed(aggregation=0.5, combination=0.5), timed(aggregation=0.9, combination=0.1))
    assert engines.values == pytest.approx({"most": 2.0, "median": (2 + 1 / 0.9) / 2})
    assert one("larger-cache", localities=[locality()]).verdict == "holds"
