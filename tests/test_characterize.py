"""`pipeline.characterize_gcn` from end to end on small graphs: what is stored, and that its parts fit together.

No verdict is asserted here: they are times. `tests/measure/phases` holds the checks against times made by hand.
"""

import io
import json
import os

import pytest
from rich.console import Console

from gnomon import pipeline
from gnomon.core.errors import DamagedData, UnknownName, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.measure.phases.record import GcnCharacterization
from gnomon.pipeline import _gcn_profile as profiles
from gnomon.pipeline._gcn_profile import Profile, Scale
from gnomon.report.characterization import attained, print_characterization
from gnomon.store.store import open_store
from gnomon.zoo.graph.order import ORDERS
from tests.measure.phases.build import machine

TINY = Profile(
    name="tiny", graphs=(Scale("cora", 20), Scale("imdb-bin", 100)), vertices=2000, edges=16_000, communities=20,
    widths=(8, 64, 128, 256), scattered=(8, 64), layers=((16, 16), (64, 8)), degrees=(2, 16), fan_outs=(2, 10),
    sessions=2, rounds=3,
)  # fmt: skip
GROUPS = {"models", "widths", "features", "vertex-order", "law", "degree", "batch", "fan-out", "fusion", "classic"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A characterization, and the one that the store gives back."""
    told = []
    store = open_store(str(tmp_path_factory.mktemp("characterize") / "results.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GNOMON_DATA", raising=False)
        with store.begin("characterize", {}) as run:
            found = pipeline.characterize_gcn(run, TINY, device=machine(), progress=told.append)
    assert any("session 2 of 2: fusion" in text for text in told)
    (row,) = store.results(kind="gcn-characterization")
    assert (row.variant, row.device) == ("tiny", "made")
    return found, store.load(row.id)


@pytest.fixture(scope="module")
def found(stored):
    return stored[0]


def test_what_is_stored_is_what_was_found(stored):
    found, loaded = stored
    assert loaded == found
    assert from_json(json.loads(json.dumps(to_json(found))), GcnCharacterization) == found


def test_every_group_was_timed_in_every_session(found):
    assert {one.group for one in found.timed} == GROUPS
    for one in found.timed:
        assert len(one.whole_s) == 2
        assert {len(step.cpu_s) for step in one.phases} == {2}
        assert min(one.whole_s) > 0


def test_models_are_timed_in_every_legal_order_and_gcn_by_scatter_too(found):
    ways = {(one.model, one.order, one.implementation) for one in found.group("models") if one.graph == "cora"}
    assert ways == {
        ("gcn", "combine-first", "csr"), ("gcn", "aggregate-first", "csr"), ("gcn", "combine-first", "scatter"),
        ("graphsage", "combine-first", "csr"), ("graphsage", "aggregate-first", "csr"),
        ("gin", "aggregate-first", "csr"), ("gat", "combine-first", "csr"),
    }  # fmt: skip


def test_both_orders_do_the_same_products_and_sums_as_wide_as_they_should_be(found):
    for order, width in (("aggregate-first", 64), ("combine-first", 8)):
        (layer,) = [one for one in found.group("widths") if one.widths == (64, 8) and one.order == order]
        assert layer.work("aggregation")[0] == 2 * layer.edges * width
        assert layer.work("combination")[0] == 2 * 2000 * 64 * 8 + 2 * 2000 * 8
    assert layer.edges == 16_000 + 2000 - looped(found)


def looped(found):
    """Edges of the power-law graph from a vertex to itself, which get no second loop; counted once a vertex."""
    graph = profiles.explored(TINY)["power law"].graph
    return len(set(graph.sources[graph.sources == graph.targets].tolist()))


def test_aggregation_moves_more_than_two_bytes_for_each_flop(found):
    for one in found.timed:
        if one.model != "mlp" and one.detail != "fused":
            assert one.intensity("aggregation") < 0.5


def test_shares_of_the_phases_sum_to_one(found):
    for one in found.timed:
        assert one.share("aggregation") + one.share("combination") == pytest.approx(1)
        assert one.cover > 0


def test_graphs_say_what_they_are_and_what_they_were_published_as(found):
    facts = {one.name: one for one in found.graphs}
    cora, law = facts["cora"], facts["power law"]
    assert (cora.vertices, cora.published_vertices, cora.note) == (135, 2708, "vertices / 20")
    assert (law.edges, law.published_edges, law.origin) == (16_000, None, "generated")


def test_simulated_hits_do_not_depend_on_times(found):
    orders = {name: found.locality("communities", name) for name in ORDERS}
    assert orders["community"].at(250)[0] > orders["degree"].at(250)[0] + 0.2
    assert found.locality("communities", "random", "shuffled").at(250)[0] < orders["random"].at(250)[0]
    for one in found.localities:
        assert list(one.lru) == sorted(one.lru)
    with pytest.raises(UsageError, match=r"no hit ratio for 7 rows; there are .*250, .*1000"):
        orders["random"].at(7)


def test_every_graph_is_balanced_and_its_reductions_counted(found):
    assert (
        {one.graph for one in found.balances}
        == {one.graph for one in found.reductions}
        == {g.name for g in found.graphs}
    )
    assert {one.workers for one in found.balances} == {2, 4, 8, 16, 32, 64}


def test_only_counted_statements_are_sure_of_their_verdict(found):
    verdicts = {one.key: one.verdict for one in found.checks}
    assert verdicts["larger-cache"] == verdicts["pin"] == "holds"
    assert verdicts["dram"] == verdicts["two-engines"] == verdicts["atomic-free"] == "cannot be seen here"
    assert [one.key for one in found.checks if one.evidence == "not measured in this run"] == []


def test_advice_gives_each_linear_model_an_order_and_gin_only_one(found):
    by_about = {one.about: one.text for one in found.advice if "features)" in one.text}
    assert by_about["gcn on cora"].startswith("combine first (1433 -> 128 features)")
    assert by_about["gin on cora"].startswith("aggregate first")


def test_memory_of_the_sessions_is_kept_and_said_to_be(found):
    assert "kept" in found.environment.allocator or "glibc" not in found.environment.allocator
    assert found.environment.threads == 1


def test_the_tables_show_every_verdict_and_every_piece_of_advice(found):
    out = io.StringIO()
    print_characterization(Console(file=out, width=110), found)
    shown = " ".join(out.getvalue().split())
    for part in (
        "models of two layers",
        "orders of one GCN layer",
        "simulated hits",
        "guidelines for hardware",
        "advice",
    ):
        assert part in shown
    for verdict in {one.verdict for one in found.checks}:
        assert verdict in shown
    assert shown.count("GCN layer") >= 2


def test_what_is_attained_is_a_share_of_the_roofline(found):
    one = found.group("models")[0]
    flop, moved = one.work("aggregation")
    bound = min(1e11, 1e10 * flop / moved)
    assert attained(found, one, "aggregation") == pytest.approx(flop / one.of("aggregation") / bound)
    mlp = next(o for o in found.timed if o.model == "mlp")
    assert attained(found, mlp, "aggregation") is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": "reducd"}, UnknownName, r"no profile is called 'reducd'\. Did you mean 'reduced'"),
        ({"models": ["gcm"]}, UnknownName, r"no model is called 'gcm'\. Did you mean 'gcn'"),
        ({"graphs": ["core"]}, UnknownName, r"no graph is called 'core'\. Did you mean 'cora'"),
        ({"graphs": ["cora (file)"]}, UnknownName, r"GNOMON_DATA names no folder with graphs/cora.npz"),
        ({"sessions": 0}, UsageError, "at least 1 session; got 0"),
    ],
)
def test_what_cannot_be_characterized_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.delenv("GNOMON_DATA", raising=False)
    with open_store(str(tmp_path / "r.db")).begin("characterize", {}) as run, pytest.raises(error, match=message):
        pipeline.characterize_gcn(run, **{"profile": TINY, "device": machine(), **arguments})


def test_a_damaged_file_of_cora_is_told(tmp_path, monkeypatch):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "cora.npz").write_bytes(b"PK\x03\x04 and then nothing")
    monkeypatch.setenv("GNOMON_DATA", str(tmp_path))
    store = open_store(str(tmp_path / "r.db"))
    with store.begin("characterize", {}) as run, pytest.raises(DamagedData, match=r"cora\.npz: wanted Cora as arrays"):
        pipeline.characterize_gcn(run, TINY, device=machine(), explore=False)


@pytest.mark.skipif("GNOMON_DATA" not in os.environ, reason="GNOMON_DATA names no folder of data")
def test_the_real_cora_joins_where_its_file_is(tmp_path):
    with open_store(str(tmp_path / "r.db")).begin("characterize", {}) as run:
        found = pipeline.characterize_gcn(
            run, TINY, graphs=["cora (file)"], models=["gin"], sessions=1, device=machine(), explore=False
        )
    assert [one.graph for one in found.timed] == ["cora (file)"]
    assert found.graphs[0].origin == "file"
    assert found.warnings[-1].startswith("one session cannot show")
