"""Characterizations made by hand: what is hidden in the times is what checks and advice must find."""

from gnomon.devices.device import Device, Quantity
from gnomon.measure.phases.record import Balance, GcnCharacterization, Locality, PhaseTime, Reduced, Timed
from gnomon.measure.record import Environment

SESSIONS = 3


def machine():
    q = lambda value: Quantity(value, "test")  # noqa: E731
    return Device(
        name="made", vendor="test", kind="cpu", architecture="test", peak_flop_s={"float32": q(1e11)},
        memory_bytes=q(16e9), memory_bandwidth_b_s=q(1e10), units=q(1), sources={"test": "made up"},
    )  # fmt: skip


def timed(group="models", *, graph="g", model="gcn", order="combine-first", implementation="csr", detail="",
          widths=(512, 128), vertices=1000, edges=10_000, aggregation=1.0, combination=1.0, whole=None):  # fmt: skip
    """A pass whose phases take so many seconds; a number for all sessions, or one each."""

    def each(value):
        return tuple(value) if isinstance(value, tuple | list) else (float(value),) * SESSIONS

    a, c = each(aggregation), each(combination)
    phases = (
        PhaseTime(0, "aggregation", a, 2 * edges * widths[0], edges * (4 * widths[0] + 8)),
        PhaseTime(0, "combination", c, 2 * vertices * widths[0] * widths[-1], 4 * vertices * (widths[0] + widths[-1])),
    )
    total = each(whole) if whole is not None else tuple(x + y for x, y in zip(a, c, strict=True))
    return Timed(group, graph, model, order, implementation, detail, widths, vertices, edges, phases, total, 1.0)


def locality(
    graph="power law", vertex_order="random", lru=(0.1, 0.2, 0.4), pinned=(0.2, 0.3, 0.6), rows=(250, 1000, 4000)
):
    return Locality(graph, vertex_order, "by destination", 10_000, 10_000, rows, lru, pinned, (5, 10))


def characterization(*passes, localities=(), balances=(), reductions=(), **rest):
    return GcnCharacterization(
        profile="made",
        seed=0,
        device=machine(),
        caches={"L2": 1000 * 4 * 128},
        graphs=(),
        timed=tuple(passes),
        localities=tuple(localities),
        balances=tuple(balances),
        reductions=tuple(reductions),
        checks=(),
        advice=(),
        environment=Environment({}, "3.12", {}, 1, "made", "cpu", "2026-01-01T00:00:00+00:00"),
        **rest,
    )


def balance(by_vertices, by_edges, graph="g", workers=16):
    return Balance(graph, workers, by_vertices, by_edges)


def reduced(atomic, conflicts, largest, graph="g"):
    return Reduced(graph, atomic, conflicts, largest)
