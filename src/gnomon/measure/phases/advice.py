"""What to do about a graph network on this machine: by the cost model where it is sure, by measured times elsewhere.

Every gain is computed from the sessions of the run. The order of phases is the cost model's, and only for layers whose
sum and transform are linear; where the times say otherwise, that is said.
"""

from collections.abc import Iterator, Sequence

from gnomon.measure.phases.checks import GAIN
from gnomon.measure.phases.costs import order_for
from gnomon.measure.phases.record import Advice, GcnCharacterization, Ratio, Timed, only

_WORKERS = 16
LINEAR = ("gcn", "graphsage")  # models whose sum and transform are both linear, with a mean


def advise(found: GcnCharacterization) -> tuple[Advice, ...]:
    """Advice for each model and graph, then for each way that was explored."""
    models = found.group("models")
    return tuple([*_orders(models), *_implementations(models), *_explored(found), *_shared_out(found)])


def order_advice(
    model: str,
    graph: str,
    vertices: int,
    edges: int,
    features: int,
    hidden: int,
    *,
    is_linear: bool,
    gain: Ratio | None,
) -> Advice:
    """Which phase of a layer comes first. gain: how many times faster combine-first was here, None if not measured.

    The cost model decides; advice flips exactly where F exceeds H, and is never combine-first for what is not linear.
    """
    about = f"{model} on {graph}"
    order = order_for(vertices, edges, features, hidden, is_linear=is_linear)
    shape = f"{features} -> {hidden} features"
    if not is_linear:
        return Advice(about, f"aggregate first ({shape}): it is not linear, so nothing else is legal", None)
    if order is None:
        return Advice(about, f"either order ({shape}): both cost the same", None)
    wide, narrow = max(features, hidden), min(features, hidden)
    counted = f"sums over neighbours are {wide / narrow:.3g} times narrower"
    if gain is None:
        return Advice(about, f"{order.replace('-', ' ')} ({shape}): {counted}; not timed here", None)
    if order == "aggregate-first":
        gain = Ratio(1 / gain.value, 1 / gain.high, 1 / gain.low)
    if gain.low < 1 < gain.high:
        return Advice(
            about, f"{order.replace('-', ' ')} ({shape}): {counted}, too little to be seen in the times here", None
        )
    if gain.value < 1:
        told = f"{order.replace('-', ' ')} ({shape}): {counted}, yet {1 / gain.value:.2f}x slower here"
        return Advice(about, told, gain.value)
    return Advice(about, f"{order.replace('-', ' ')} ({shape}): {gain.value:.2g}x here, {counted}", gain.value)


def _orders(models: Sequence[Timed]) -> Iterator[Advice]:
    seen = set()
    for one in models:
        if one.implementation != "csr" or (one.model, one.graph) in seen or one.model == "gat":
            continue  # attention has one order by construction
        seen.add((one.model, one.graph))
        both = [only(models, model=one.model, graph=one.graph, implementation="csr", order=order)
                for order in ("combine-first", "aggregate-first")]  # fmt: skip
        gain = both[0].times_faster_than(both[1]) if both[0] is not None and both[1] is not None else None
        yield order_advice(
            one.model, one.graph, one.vertices, one.edges, one.widths[0], one.widths[1],
            is_linear=one.model in LINEAR, gain=gain,
        )  # fmt: skip


def _implementations(models: Sequence[Timed]) -> Iterator[Advice]:
    for one in models:
        if one.implementation == "csr":
            others = [other for other in models if other.implementation != "csr"
                      and (other.model, other.graph, other.order) == (one.model, one.graph, one.order)]  # fmt: skip
            for other in others:
                ratio = one.times_faster_than(other)
                fast, slow = ("csr", other.implementation) if ratio.value >= 1 else (other.implementation, "csr")
                gain = max(ratio.value, 1 / ratio.value)
                if ratio.low > GAIN or ratio.high < 1 / GAIN:
                    yield Advice(f"{one.model} on {one.graph}", f"use {fast}: {gain:.2g}x here, against {slow}", gain)


def _explored(found: GcnCharacterization) -> Iterator[Advice]:
    features, orders = found.group("features"), found.group("vertex-order")
    for scatter in (one for one in features if one.implementation == "scatter"):
        csr = only(features, implementation="csr", widths=scatter.widths)
        yield from _better("sums over neighbours", f"use csr at {scatter.widths[0]} features", scatter, csr)
    for tiled in (one for one in features if one.implementation == "tiled"):
        plain = only(features, implementation="csr", widths=tiled.widths)
        yield from _better("long features", f"tile {tiled.widths[0]} features", plain, tiled)
    random = only(orders, implementation="csr", detail="random")
    ordered = [one for one in orders if one.implementation == "csr" and one is not random]
    if random is not None and ordered:
        best = min(ordered, key=lambda one: one.seconds)
        yield from _better("vertex order", f"order the vertices by {best.detail}", random, best)
    shuffled, sorted_ = only(orders, detail="edges shuffled"), only(orders, implementation="scatter", detail="random")
    yield from _better("edge order", "sort edges by destination before a scatter", shuffled, sorted_)
    fusion = found.group("fusion")
    yield from _better(
        "fusion",
        "fuse the phases in blocks of vertices",
        only(fusion, detail="two phases"),
        only(fusion, detail="fused"),
    )


def _better(about: str, what: str, slow: Timed | None, fast: Timed | None) -> Iterator[Advice]:
    """Advice to do it, or not to, when every session says so; none when they disagree."""
    if slow is None or fast is None:
        return
    ratio = fast.times_faster_than(slow)
    if ratio.low > GAIN:
        yield Advice(about, f"{what}: {ratio.value:.2g}x here", ratio.value)
    elif ratio.high < 1 / GAIN:
        yield Advice(about, f"do not {what}: {1 / ratio.value:.2g}x slower here", ratio.value)


def _shared_out(found: GcnCharacterization) -> Iterator[Advice]:
    for one in found.balances:
        if one.workers == _WORKERS and one.by_vertices > GAIN * one.by_edges:
            yield Advice(
                one.graph,
                f"share out edges, not vertices, over {_WORKERS} workers: the busiest has {one.by_edges:.2f} times the "
                f"mean instead of {one.by_vertices:.2f} (counted)",
                None,
            )
