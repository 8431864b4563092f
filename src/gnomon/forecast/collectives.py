"""Time of a collective between devices: latency per hop plus bytes over bandwidth; ring or tree, in and across nodes.

The alpha-beta model (Hockney 1994; Thakur, Rabenseifner and Gropp 2005, doi 10.1177/1094342005051521) with what NCCL's
published times show on top: the bandwidth of middle-sized messages is not reached at once. A group that spans nodes is
hierarchical: reduce-scatter in the node, the collective across nodes on each device's share, all-gather in the node.

The constants are read off the times of aiconfigurator-core's nccl table (A100 SXM, L40S, RTX PRO 6000; groups of 2, 4
and 8; benchmarks/collectives.py prints how well they do, and how far each system moves them). They are global: a device
is only its links. The table's column message_size counts elements: taken so, half precision and int8 reach the same
bandwidth to 11 %; taken as bytes they would differ by a factor of two. The constants of the network are ours.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gnomon.core.errors import UsageError
from gnomon.devices.device import Device
from gnomon.forecast.price import Efficiency
from gnomon.forecast.record import Estimate

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send"]
Algorithm = Literal["ring", "tree"]


class Constants(NamedTuple):
    """What is common to all devices; the defaults are read off public times, those of the network are ours."""

    start_s: Efficiency = Efficiency(6.5e-6, 3.5e-6, 12e-6)  # the kernel and the first handshake
    hop_s: Efficiency = Efficiency(1.2e-6, 0.7e-6, 2.2e-6)  # one step to a neighbour in the node
    network_hop_s: Efficiency = Efficiency(5e-6, 2.5e-6, 12e-6)  # ours: one step through the network
    # share of a link that large messages reach:
    fabric: Efficiency = Efficiency(0.68, 0.50, 0.85)  # of NVLink or Infinity Fabric
    pair: Efficiency = Efficiency(0.60, 0.45, 0.75)  # of PCI Express between two cards
    shared: Efficiency = Efficiency(0.34, 0.035, 0.62)  # between more, whose traffic meets in switches and sockets
    network: Efficiency = Efficiency(0.80, 0.45, 0.95)  # ours: of the network's port
    ramp_s: Efficiency = Efficiency(30e-6, 8e-6, 80e-6)  # what a message loses at most until the links are full


CONSTANTS = Constants()
_RAMP = 0.9  # a message that does not fill them takes so much longer than at full bandwidth
NODE_SIZE = 8  # devices in a node where the device's file does not say


@dataclass(frozen=True, slots=True)
class Transfer:
    """A collective to be priced.

    bytes: size of the whole tensor: what is reduced, what each device has after a gather or before a scatter, what it
    exchanges with all others, or what is sent. group: devices that take part. per_node: how many of them share a node.
    """

    kind: Kind
    bytes: float
    group: int
    per_node: int


class _Hop(NamedTuple):
    bandwidth_b_s: float
    efficiency: Efficiency
    latency_s: Efficiency


def transfer_time(
    transfer: Transfer, device: Device, algorithm: Algorithm | None = None, constants: Constants = CONSTANTS
) -> Estimate:
    """Seconds from the moment at which all devices have come. algorithm: the faster one when None.

    A group of one and zero bytes take no time. Raises UsageError for an impossible group and for a device whose file
    states no link or, when the group spans nodes, no network.
    """
    size, per_node = transfer.group, transfer.per_node
    if size < 1 or not 1 <= per_node <= size or size % per_node:
        raise UsageError(f"wanted a group of whole nodes; got {size} devices, {per_node} in each node")
    if size == 1 or transfer.bytes <= 0:
        return Estimate(0.0, 0.0, 0.0)
    algorithms: tuple[Algorithm, ...] = (algorithm,) if algorithm else ("ring", "tree")

    def seconds(case: int) -> float:
        """case: which column of the constants, 0 expected, 1 fastest, 2 slowest."""
        return min(_hierarchical(transfer, device, name, case, constants) for name in algorithms)

    return Estimate(seconds(0), seconds(1), seconds(2))


def members_per_node(device: Device, group: int, stride: int = 1) -> int:
    """How many devices of a group share a node when its members are `stride` apart in the order of devices."""
    node = node_size(device)
    return math.gcd(group, max(1, node // stride)) if node < group * stride else group


def node_size(device: Device) -> int:
    return int(device.node_size.value) if device.node_size is not None else NODE_SIZE


def _hierarchical(transfer: Transfer, device: Device, algorithm: Algorithm, case: int, constants: Constants) -> float:
    kind, count, inside = transfer.kind, transfer.bytes, transfer.per_node
    nodes = transfer.group // inside
    start, ramp = constants.start_s, constants.ramp_s
    start_s, ramp_s = (_pick(c, case, slow_is_high=True) for c in (start, ramp))
    if nodes == 1:
        return start_s + _flat(kind, count, inside, _link(device, inside, constants), algorithm, case, ramp_s)
    network = _network(device, constants)
    if inside == 1 or kind == "send":
        return start_s + _flat(kind, count, nodes if kind != "send" else 2, network, algorithm, case, ramp_s)
    link = _link(device, inside, constants)
    if kind == "all_to_all":  # what stays in the node and what leaves it go at the same time
        leaving = count * (transfer.group - inside) / transfer.group
        staying = count - leaving
        within = _flat(kind, staying, inside, link, algorithm, case, ramp_s)
        return start_s + max(
            within, _flat(kind, leaving * nodes / (nodes - 1), nodes, network, algorithm, case, ramp_s)
        )
    share = count / inside
    across = _flat(kind, share, nodes, network, algorithm, case, ramp_s)
    if kind == "all_reduce":
        return start_s + across + sum(_flat(k, count, inside, link, algorithm, case, ramp_s) for k in _HALVES)
    if kind == "broadcast":
        return start_s + across + _flat("all_gather", count, inside, link, algorithm, case, ramp_s)
    return start_s + across + _flat(kind, count, inside, link, algorithm, case, ramp_s)


_HALVES: tuple[Kind, Kind] = ("reduce_scatter", "all_gather")


def _flat(kind: Kind, count: float, size: int, hop: _Hop, algorithm: Algorithm, case: int, ramp_s: float) -> float:
    """Steps times latency plus the bytes that pass each device's link, start excluded."""
    depth = math.ceil(math.log2(size))
    share = (size - 1) / size
    if kind == "send":
        steps, passes = 1, 1.0
    elif kind == "all_to_all":
        steps, passes = 1, share
    elif kind == "broadcast":
        steps, passes = (size - 1 if algorithm == "ring" else depth), 1.0  # in pieces, one behind the other
    elif kind == "all_reduce" and algorithm == "ring":
        return sum(_flat(half, count, size, hop, algorithm, case, ramp_s) for half in _HALVES)
    elif kind == "all_reduce":  # up and down a tree, in pieces: every link carries the whole tensor twice
        steps, passes = 2 * depth, 2.0
    else:  # a tree of all-gathers (recursive doubling) sends no more than the ring, but crosses links that others use
        steps, passes = (size - 1, share) if algorithm == "ring" else (depth, 2 * share)
    efficiency = _pick(hop.efficiency, case, slow_is_high=False)
    full_s = passes * count / (hop.bandwidth_b_s * efficiency)
    ramp_s *= 2 if kind == "all_reduce" else 1
    return steps * _pick(hop.latency_s, case, slow_is_high=True) + full_s + min(_RAMP * full_s, ramp_s)


def _pick(constant: Efficiency, case: int, *, slow_is_high: bool) -> float:
    if case == 0:
        return constant.value
    return constant.low if (case == 1) is slow_is_high else constant.high


def _link(device: Device, size: int, constants: Constants) -> _Hop:
    link = device.link_b_s or device.pcie_b_s
    if link is None:
        raise UsageError(
            f"{device.name} states no link_b_s; a forecast for several devices needs it in the device's file"
        )
    if device.pcie_b_s is None:
        own = link.value > 64e9  # no PCI Express slot has more
    else:
        own = link.value > 1.5 * device.pcie_b_s.value
    return _Hop(
        link.value, constants.fabric if own else constants.pair if size == 2 else constants.shared, constants.hop_s
    )


def _network(device: Device, constants: Constants) -> _Hop:
    if device.network_b_s is None:
        raise UsageError(
            f"{device.name} states no network_b_s, and the group spans nodes of {node_size(device)}. Give a device "
            "file with network_b_s and node_size, or keep the group within one node"
        )
    return _Hop(device.network_b_s.value, constants.network, constants.network_hop_s)
