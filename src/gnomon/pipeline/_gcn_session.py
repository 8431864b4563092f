"""One session of a characterization of graph networks: a fresh process that builds every pass and times it.

Passes that are compared with each other are in one group, and interleaved round by round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnomon.core.process import JSON, progress
from gnomon.core.records import structure, to_json
from gnomon.measure.clock import Clock
from gnomon.measure.doctor import allocator_regime
from gnomon.measure.phases.record import PhaseTime, Timed
from gnomon.measure.phases.timing import Pass, time_passes
from gnomon.pipeline._gcn_profile import HIDDEN, SEED, WIDE, Profile, Scale, explored, sample
from gnomon.zoo.graph.graph import Graph
from gnomon.zoo.graph.layers import (
    GCNLayer,
    GraphNetwork,
    Order,
    SAGELayer,
    Step,
    Work,
    check_features,
    network,
)
from gnomon.zoo.graph.neighbours import Csr, Neighbours, Padded, Scatter, Tiled
from gnomon.zoo.graph.sample import fan_out

_BUDGET_S = 30.0  # wall time of a group after which no further round starts


@dataclass(frozen=True, slots=True)
class _Case:
    """What is told of a pass, and the steps that it is made of, each with its layer."""

    told: Timed
    x_VF: Tensor
    steps: list[tuple[int, Step]]


def session(arguments: JSON) -> JSON:
    """Time every group. arguments: profile, graphs (scales of the models group), seed, orders {name: vertices}.

    Returns {timed: [...], left_out: [...], allocator}, each pass with one number per phase.
    """
    torch.set_num_threads(1)
    what = structure(Profile, arguments["profile"])
    scales = [structure(Scale, one) for one in arguments["graphs"]]
    orders = {name: np.array(order, dtype=np.int64) for name, order in arguments["orders"].items()}
    timed: list[Timed] = []
    left_out: list[str] = []
    with torch.inference_mode():
        for name, build in _groups(what, scales, orders, arguments["models"], left_out):
            progress(name)
            cases = list(build())
            passes = [
                Pass(case.told.detail, partial(_start, case.x_VF), _runs(case.steps), partial(_whole, case))
                for case in cases
            ]
            times = time_passes(passes, Clock(), what.rounds, _BUDGET_S, arguments["seed"])
            for case, found in zip(cases, times, strict=True):
                phases = tuple(
                    PhaseTime(layer, step.phase, (seconds,), step.work.flop, step.work.bytes_moved)
                    for (layer, step), seconds in zip(case.steps, found.typical(), strict=True)
                )
                whole = float(np.median(found.whole))
                timed.append(replace(case.told, phases=phases, whole_s=(whole,), cover=found.cover))
    return {"timed": [to_json(one) for one in timed], "left_out": left_out, "allocator": allocator_regime()}


def _start(x_VF: Tensor) -> tuple[Tensor, ...]:
    return (x_VF,)


def _runs(steps: list[tuple[int, Step]]) -> list[Callable[[Any], Any]]:
    return [step.run for _, step in steps]


def _whole(case: _Case) -> Any:
    state: tuple[Tensor, ...] = (case.x_VF,)
    for _, step in case.steps:
        state = step.run(state)
    return state


_Build = Callable[[], Iterator[_Case]]


def _groups(
    what: Profile, scales: list[Scale], orders: dict[str, Any], models: list[str], left_out: list[str]
) -> Iterator[tuple[str, _Build]]:
    for scale in scales:
        yield f"models on {scale.name}", partial(_models, scale, models)
    if not what.vertices:
        return
    graphs = {name: one.graph for name, one in explored(what).items()}
    law = graphs["power law"]
    yield "widths of a layer", partial(_layer_widths, what, law)
    yield "features of a sum", partial(_features, what, law, left_out)
    yield "vertex order", partial(_vertex_order, graphs["communities"], orders)
    yield "degree law", partial(_law, graphs, orders)
    yield "mean degree", partial(_degrees, what, graphs)
    yield "batch of small graphs", partial(_batch, graphs)
    yield "fan-out", partial(_fan_out, what, law)
    yield "fusion", partial(_fusion, law)
    yield "classic kernels", partial(_classic, law)


def _models(scale: Scale, kinds: list[str]) -> Iterator[_Case]:
    """Every model in every legal order; GCN by scatter too."""
    found = sample(scale)
    x_VF = _features_of(found.graph, found.features)
    for kind in kinds:
        model = network(kind, [found.features, HIDDEN, found.classes], SEED)
        prepared = model.prepare(found.graph)
        for order in model.orders:
            yield _of_model("models", scale.name, model, prepared, order, x_VF)
        if kind == "gcn":
            yield _of_model("models", scale.name, model, model.prepare(found.graph, Scatter), model.orders[0], x_VF)


def _of_model(
    group: str, graph: str, model: GraphNetwork, prepared: Neighbours, order: Order, x_VF: Tensor, detail: str = ""
) -> _Case:
    check_features(x_VF, prepared.vertices, model.widths[0])
    told = _told(group, graph, model.kind, order, prepared, detail or order, model.widths)
    return _Case(told, x_VF, model.steps(prepared, order))


def _layer_widths(what: Profile, graph: Graph) -> Iterator[_Case]:
    for features, hidden in what.layers:
        model = network("gcn", [features, hidden], SEED)
        prepared, x_VF = model.prepare(graph), _features_of(graph, features)
        for order in model.orders:
            yield _of_model("widths", "power law", model, prepared, order, x_VF, f"{features} -> {hidden}")


def _features(what: Profile, graph: Graph, left_out: list[str]) -> Iterator[_Case]:
    """One sum over neighbours at many widths, by every implementation that can."""
    ones = torch.ones(graph.edges)
    reason = Padded.why_not(graph)
    if reason is not None:
        left_out.append(f"padded sums on the power-law graph: {reason}")
    for width in what.widths:
        x_VF = _features_of(graph, width)
        yield _sum("features", "power law", Csr(graph, ones), x_VF, f"{width} features")
        if width in what.scattered:
            yield _sum("features", "power law", Scatter(graph, ones), x_VF, f"{width} features")
        if width == max(what.widths):
            yield _sum("features", "power law", Tiled(graph, ones), x_VF, f"{width} features")


def _vertex_order(graph: Graph, orders: dict[str, Any]) -> Iterator[_Case]:
    x_VF = _features_of(graph, WIDE)
    for name, order in orders.items():
        if not name.startswith("power law: "):
            renamed = graph.renamed(order)
            yield _sum("vertex-order", "communities", Csr(renamed, torch.ones(graph.edges)), x_VF, name)
    shuffled = graph.renamed(orders["random"])
    ones = torch.ones(graph.edges)
    yield _sum("vertex-order", "communities", Scatter(shuffled, ones), x_VF, "random")
    yield _sum("vertex-order", "communities", Scatter(shuffled, ones, shuffle=SEED), x_VF, "edges shuffled")


def _law(graphs: dict[str, Graph], orders: dict[str, Any]) -> Iterator[_Case]:
    """As many vertices and edges under two laws of degree; the power law also with its hubs first."""
    for name in ("power law", "uniform"):
        graph = graphs[name]
        ones, x_VF = torch.ones(graph.edges), _features_of(graph, WIDE)
        yield _sum("law", name, Csr(graph, ones), x_VF, "random")
        if Padded.why_not(graph) is None:
            yield _sum("law", name, Padded(graph, ones), x_VF, "random")
    law = graphs["power law"].renamed(orders["power law: degree"])
    yield _sum("law", "power law", Csr(law, torch.ones(law.edges)), _features_of(law, WIDE), "degree")


def _degrees(what: Profile, graphs: dict[str, Graph]) -> Iterator[_Case]:
    for degree in what.degrees:
        name = f"degree {degree}"
        model = network("gcn", [WIDE, HIDDEN], SEED)
        prepared, x_VF = model.prepare(graphs[name]), _features_of(graphs[name], WIDE)
        yield _of_model("degree", name, model, prepared, "combine-first", x_VF, f"mean degree {degree}")


def _batch(graphs: dict[str, Graph]) -> Iterator[_Case]:
    for name in ("one large graph", "small graphs"):
        graph = graphs[name]
        yield _sum("batch", name, Csr(graph, torch.ones(graph.edges)), _features_of(graph, WIDE), name)


def _fan_out(what: Profile, graph: Graph) -> Iterator[_Case]:
    """GraphSAGE over sampled neighbours; the sampling itself is done before."""
    model, x_VF = network("graphsage", [WIDE, HIDDEN], SEED), _features_of(graph, WIDE)
    sampled = {f"fan-out {k}": fan_out(graph, k, SEED) for k in what.fan_outs}
    for name, one in {**sampled, "all neighbours": graph}.items():
        yield _of_model("fan-out", "power law", model, model.prepare(one), "aggregate-first", x_VF, name)


def _fusion(graph: Graph) -> Iterator[_Case]:
    """A layer that aggregates first, in two phases and by blocks of vertices."""
    layer = GCNLayer(4 * WIDE, HIDDEN, torch.relu).eval()
    prepared, x_VF = Csr(*layer.edges(graph, torch.float32)), _features_of(graph, 4 * WIDE)
    told = _told("fusion", "power law", "gcn", "aggregate-first", prepared, "two phases", (4 * WIDE, HIDDEN))
    steps = layer.steps(prepared, "aggregate-first")
    yield _Case(told, x_VF, [(0, step) for step in steps])
    work = sum((step.work for step in steps), Work(0, 0))
    fused = Step("aggregation", lambda state: (layer.fused(state[0], prepared),), work)  # both, told as the first
    yield _Case(replace(told, detail="fused"), x_VF, [(0, fused)])


def _classic(graph: Graph) -> Iterator[_Case]:
    """PageRank's step beside a sum of features, a linear layer beside a combination."""
    prepared = Csr(graph, SAGELayer.edges(graph, torch.float32)[1])
    yield _named(_sum("classic", "power law", prepared, _features_of(graph, 1), "1 number"), "pagerank")
    yield _sum("classic", "power law", prepared, _features_of(graph, WIDE), f"{WIDE} features")
    model, x_VF = network("gcn", [WIDE, HIDDEN], SEED), _features_of(graph, WIDE)
    yield _of_model("classic", "power law", model, model.prepare(graph), "aggregate-first", x_VF)
    dense = nn.Sequential(nn.Linear(WIDE, HIDDEN)).eval()
    work = Work(2 * graph.vertices * WIDE * HIDDEN, 4 * (graph.vertices * (WIDE + HIDDEN) + WIDE * HIDDEN))
    told = _told("classic", "power law", "mlp", "", prepared, f"{WIDE} -> {HIDDEN}", (WIDE, HIDDEN))
    yield _Case(told, x_VF, [(0, Step("combination", lambda state: (dense(state[0]),), work))])


def _named(case: _Case, model: str) -> _Case:
    """The same pass under another name."""
    return replace(case, told=replace(case.told, model=model))


def _sum(group: str, graph: str, prepared: Neighbours, x_VF: Tensor, detail: str) -> _Case:
    """One weighted sum over neighbours and nothing else."""
    width, e, n = x_VF.shape[1], prepared.graph.edges, prepared.vertices
    work = Work(2 * e * width, e * (4 * width + 8) + 4 * n * width)
    told = _told(group, graph, "sum", "", prepared, detail, (width, width))
    return _Case(told, x_VF, [(0, Step("aggregation", lambda state: (prepared.sum(state[0]),), work))])


def _told(
    group: str, graph: str, model: str, order: str, prepared: Neighbours, detail: str, widths: tuple[int, ...]
) -> Timed:
    n, e = prepared.vertices, prepared.graph.edges
    return Timed(group, graph, model, order, prepared.name, detail, widths, n, e, (), (), 1.0)


def _features_of(graph: Graph, width: int) -> Tensor:
    """[V, width], normal numbers: a real graph's are sparse, which no model here makes use of."""
    return torch.randn(graph.vertices, width, generator=torch.Generator().manual_seed(SEED))
