from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import UsageError
from gnomon.devices import catalogue
from gnomon.forecast.collectives import CONSTANTS, Transfer, members_per_node, transfer_time
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import Physics
from gnomon.workload.graph import Op

from .build import device, graph, matmul_graph

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send")
GPU = device(link_b_s=300e9, pcie_b_s=32e9, network_b_s=25e9, node_size=8.0)
kinds = st.sampled_from(KINDS)
groups = st.sampled_from([(2, 2), (4, 4), (8, 8), (16, 8), (32, 8), (6, 2), (4, 1)])
sizes = st.floats(1, 1e11)


@given(sizes, groups)
def test_no_all_reduce_is_faster_than_the_bytes_over_the_links(count, group):
    members, near = group
    slowest_link = 300e9 if members == near else 25e9 * near  # every device of a node has a port of its own
    nodes = members // near
    least = 2 * (nodes - 1) / nodes * count / slowest_link if nodes > 1 else 2 * (near - 1) / near * count / 300e9
    assert transfer_time(Transfer("all_reduce", count, members, near), GPU).low_s >= least


@given(kinds, sizes, groups, st.floats(1, 100))
def test_more_bytes_never_take_less(kind, count, group, factor):
    few, many = (transfer_time(Transfer(kind, c, *group), GPU) for c in (count, count * factor))
    assert (few.low_s, few.value_s, few.high_s) <= (many.low_s, many.value_s, many.high_s)


@given(kinds, sizes, groups)
def test_an_interval_holds_its_estimate(kind, count, group):
    time = transfer_time(Transfer(kind, count, *group), GPU)
    assert 0 < time.low_s < time.value_s < time.high_s


@given(kinds, sizes, groups, st.sampled_from(["link_b_s", "network_b_s"]))
def test_twice_the_bandwidth_never_slows(kind, count, group, field):
    faster = replace(GPU, **{field: replace(getattr(GPU, field), value=2 * getattr(GPU, field).value)})
    slow, fast = (transfer_time(Transfer(kind, count, *group), gpu).value_s for gpu in (GPU, faster))
    assert fast <= slow


@given(kinds, sizes)
def test_a_group_of_one_is_free_and_so_is_nothing(kind, count):
    assert transfer_time(Transfer(kind, count, 1, 1), GPU).high_s == 0
    assert transfer_time(Transfer(kind, 0.0, 8, 8), GPU).high_s == 0


@given(sizes, groups)
def test_a_ring_all_reduce_is_a_reduce_scatter_and_an_all_gather(count, group):
    whole, *halves = (
        transfer_time(Transfer(kind, count, *group), GPU, "ring").value_s - CONSTANTS.start_s.value
        for kind in ("all_reduce", "reduce_scatter", "all_gather")
    )
    assert whole == pytest.approx(sum(halves))


def test_a_tree_wins_for_small_messages_in_large_groups_and_a_ring_for_large_messages():
    for count, winner in ((1e3, "tree"), (1e10, "ring")):
        times = {a: transfer_time(Transfer("all_reduce", count, 32, 1), GPU, a).value_s for a in ("ring", "tree")}
        assert min(times, key=times.get) == winner
        assert transfer_time(Transfer("all_reduce", count, 32, 1), GPU).value_s == times[winner]


def test_leaving_the_node_costs_more_than_staying():
    near, far = (transfer_time(Transfer("all_reduce", 1e8, 8, n), GPU).value_s for n in (8, 4))
    assert far > 1.5 * near


# aiconfigurator-core 0.12.0 (Apache-2.0, NVIDIA), nccl table, half precision: 2 bytes for each element of message_size
@pytest.mark.parametrize(
    ("slug", "kind", "group", "elements", "measured_s"),
    [
        ("A100-80GB-SXM", "all_reduce", 2, 256, 9.98e-6),
        ("A100-80GB-SXM", "all_reduce", 8, 2**28, 4.2259e-3),
        ("A100-80GB-SXM", "all_gather", 8, 2**28, 2.288e-3),
        ("A100-80GB-SXM", "all_to_all", 4, 2**28, 2.0657e-3),
        ("L40S", "all_reduce", 2, 2**28, 26.7e-3),
        ("L40S", "all_gather", 8, 2**28, 400.176e-3),
        ("RTX-PRO-6000", "reduce_scatter", 8, 2**28, 19.9471e-3),
        ("RTX-PRO-6000", "all_reduce", 8, 2**28, 38.073e-3),
    ],
)
def test_published_times_lie_in_the_interval(slug, kind, group, elements, measured_s):
    time = transfer_time(Transfer(kind, 2.0 * elements, group, group), catalogue.get(slug))
    assert time.low_s < measured_s < time.high_s


@pytest.mark.parametrize(
    ("group", "stride", "near"), [(8, 1, 8), (16, 1, 8), (4, 2, 4), (8, 2, 4), (4, 8, 1), (2, 4, 2), (12, 1, 4)]
)
def test_members_of_a_group_share_nodes_as_their_numbers_have_it(group, stride, near):
    assert members_per_node(GPU, group, stride) == near


def test_a_link_that_the_file_does_not_state_is_asked_for():
    with pytest.raises(UsageError, match="round states no link_b_s"):
        transfer_time(Transfer("send", 1.0, 2, 2), device())
    with pytest.raises(UsageError, match="round states no network_b_s, and the group spans nodes of 8"):
        transfer_time(Transfer("all_reduce", 1.0, 16, 8), device(link_b_s=300e9))


@pytest.mark.parametrize(("group", "near"), [(0, 1), (4, 3), (4, 0), (2, 4)])
def test_an_impossible_group_is_refused(group, near):
    with pytest.raises(UsageError, match="wanted a group of whole nodes; got"):
        transfer_time(Transfer("all_reduce", 1.0, group, near), GPU)


def test_more_than_two_cards_on_pci_express_get_less_each():
    card = device(link_b_s=32e9, pcie_b_s=32e9)
    pair, many = (transfer_time(Transfer("all_to_all", 1e9 * g / (g - 1), g, g), card).value_s for g in (2, 4))
    assert many / pair == pytest.approx(CONSTANTS.pair.value / CONSTANTS.shared.value, rel=0.01)


class _Silent(Physics):
    """A predictor that has never heard of collectives."""

    name = "silent"

    def prices(self, works, device):
        assert all(work.category != "collective" for work in works)
        return super().prices(works, device)


def test_whichever_predictor_is_asked_collectives_are_priced_by_their_links():
    product = matmul_graph()
    about = {"bytes": 1e8, "group": 8, "per_node": 8}
    op = Op("gnomon.all_reduce", "", "", "forward", "collective", (2,), (2,), 0.0, 1e8, 1e8, about)
    mixed = graph(*product.ops, op, tensors=product.tensors)
    for predictor in (None, _Silent()):
        made = forecast(mixed, GPU, predictor=predictor).ops[1]
        assert made.bound == "communication"
        assert made.time == transfer_time(Transfer("all_reduce", 1e8, 8, 8), GPU)
    half = forecast(mixed, GPU, dtype="bfloat16").ops[1]
    assert half.time == transfer_time(Transfer("all_reduce", 5e7, 8, 8), GPU)
