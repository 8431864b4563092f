"""The papers' findings and guidelines as checks of a characterization: each holds here, does not, or cannot be seen.

A statement about times holds when every session shows it, does not hold when none does, and cannot be seen here when
they disagree. What was counted or simulated has no noise. Statements: Yan et al. 2020, arXiv:2001.10160, and HyGCN,
arXiv:2001.02514, in the words of the method's card.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gnomon.measure.phases.cache import rows_of
from gnomon.measure.phases.record import Check, GcnCharacterization, Kind, Ratio, Timed, Verdict, only

GAIN = 1.05  # a smaller gain is not worth a change
_MUCH_NARROWER = 4  # F >= 4 H, where the card expects combine-first to win by 2
_WORKERS = 16
_WIDE = 128
_ROWS = (250, 1000, 4000)  # of the many simulated capacities, those that are told


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    evidence: str
    values: dict[str, float]


_Look = Callable[[GcnCharacterization], _Found | None]
_CHECKS: list[tuple[str, Kind, str, _Look]] = []


def check(found: GcnCharacterization) -> tuple[Check, ...]:
    """Every check, in the order finding, software, hardware."""
    checks = []
    for key, kind, statement, look in _CHECKS:
        seen = look(found) or _Found("cannot be seen here", "not measured in this run", {})
        checks.append(Check(key, kind, statement, seen.verdict, seen.evidence, seen.values))
    return tuple(checks)


def _says(key: str, kind: Kind, statement: str) -> Callable[[_Look], _Look]:
    def add(look: _Look) -> _Look:
        _CHECKS.append((key, kind, statement, look))
        return look

    return add


def _agreed(sessions: Sequence[bool]) -> Verdict:
    if sessions and all(sessions):
        return "holds"
    return "cannot be seen here" if any(sessions) else "does not hold"


def _at_least(ratio: Ratio, least: float) -> Verdict:
    """By the least and the largest session."""
    if ratio.low >= least:
        return "holds"
    return "does not hold" if ratio.high < least else "cannot be seen here"


def _between(ratio: Ratio) -> str:
    return f"{ratio.value:.3g} times ({ratio.low:.3g} to {ratio.high:.3g} over sessions)"


@_says("dominates", "finding", "Aggregation dominates where the graph is dense")
def _(c: GcnCharacterization) -> _Found | None:
    by_degree = sorted(c.group("degree"), key=lambda one: one.edges / max(one.vertices, 1))
    if len(by_degree) < 2:
        return None
    sparse, dense = by_degree[0], by_degree[-1]
    pairs = zip(sparse.shares("aggregation"), dense.shares("aggregation"), strict=True)
    verdict = _agreed([b > a and b > 0.5 for a, b in pairs])
    shares = [one.share("aggregation") for one in by_degree]
    told = ", ".join(f"{s:.0%} at {one.detail}" for s, one in zip(shares, by_degree, strict=True))
    width = f"{dense.widths[0]} -> {dense.widths[-1]}"
    return _Found(
        verdict, f"aggregation's share of a GCN layer {width}: {told}", {"sparse": shares[0], "dense": shares[-1]}
    )


@_says("memory-bound", "finding", "Aggregation is bound by memory, combination by arithmetic")
def _(c: GcnCharacterization) -> _Found | None:
    models = c.group("models")
    sums = [i for one in models if (i := one.intensity("aggregation")) is not None]
    products = [max((step for step in one.phases if (step.layer, step.phase) == (0, "combination")),
                    key=lambda step: step.flop, default=None) for one in models]  # fmt: skip
    dense = [step.flop / step.bytes_moved for step in products if step is not None]
    if not sums or not dense:
        return None
    ridge = c.device.peak("float32") / c.device.memory_bandwidth_b_s.value
    verdict: Verdict = "holds" if max(sums) < ridge < min(dense) else "does not hold"
    evidence = (
        f"FLOP per byte: aggregation at most {max(sums):.2f}, first layers' products at least {min(dense):.1f}; this "
        f"machine turns from memory to arithmetic at {ridge:.1f}"
    )
    return _Found(verdict, evidence, {"aggregation": max(sums), "combination": min(dense), "ridge": ridge})


@_says("attained", "finding", "Combination reaches far more of the arithmetic peak than aggregation does")
def _(c: GcnCharacterization) -> _Found | None:
    models = [one for one in c.group("models") if one.implementation == "csr"]
    if not models:
        return None
    peak = c.device.peak("float32")
    rates = {}
    for phase in ("aggregation", "combination"):
        rates[phase] = statistics.median(one.work(phase)[0] / one.of(phase) / peak for one in models if one.of(phase))
    verdict = _agreed([rates["combination"] > 2 * rates["aggregation"]])
    return _Found(
        verdict,
        f"median over models and graphs: combination {rates['combination']:.0%} of the peak, aggregation "
        f"{rates['aggregation']:.1%}",
        rates,
    )


@_says("poor-reuse", "finding", "Neighbours' rows are rarely found in the cache again")
def _(c: GcnCharacterization) -> _Found | None:
    found, name = c.locality("power law", "random"), next(iter(c.caches), None)
    if found is None or name is None:
        return None
    rows = rows_of(c.caches[name], _WIDE)
    lru, _ = found.at(rows)
    if lru is None:
        return None
    return _Found(
        "holds" if lru < 0.5 else "does not hold",
        f"an LRU cache of the size of {name} ({rows} rows of {_WIDE} features) hits {lru:.1%} on a power-law graph",
        {"hit_ratio": lru},
    )


@_says("evicts", "finding", "Longer features evict neighbours sooner")
def _(c: GcnCharacterization) -> _Found | None:
    found, name = c.locality("power law", "random"), next(iter(c.caches), None)
    widths = sorted({one.widths[0] for one in c.group("features")})
    if found is None or name is None or len(widths) < 2:
        return None
    ratios = [found.at(rows_of(c.caches[name], width))[0] or 0.0 for width in widths]
    verdict = _agreed([ratios[-1] < ratios[0]])
    told = f"{ratios[0]:.1%} at {widths[0]} features to {ratios[-1]:.1%} at {widths[-1]}"
    return _Found(verdict, f"simulated hits in {name} go from {told}", {"short": ratios[0], "long": ratios[-1]})


@_says("linear", "finding", "Aggregation's time grows linearly with long features")
def _(c: GcnCharacterization) -> _Found | None:
    sums = sorted((one for one in c.group("features") if one.implementation == "csr" and one.widths[0] >= 64),
                  key=lambda one: one.widths[0])  # fmt: skip
    if len(sums) < 3:
        return None
    slopes = []
    for i in range(len(sums[0].whole_s)):
        x, y = [math.log(one.widths[0]) for one in sums], [math.log(one.whole_s[i]) for one in sums]
        slopes.append(statistics.linear_regression(x, y).slope)
    slope = statistics.median(slopes)
    told = f"time ~ F^{slope:.2f} from {sums[0].widths[0]} to {sums[-1].widths[0]} features"
    return _Found(_agreed([0.75 <= one <= 1.25 for one in slopes]), told, {"exponent": slope})


@_says("lanes", "finding", "Features give aggregation a parallelism that PageRank does not have")
def _(c: GcnCharacterization) -> _Found | None:
    classic = c.group("classic")
    rank, wide = only(classic, model="pagerank"), only(classic, model="sum")
    if rank is None or wide is None:
        return None
    ratios = [a * wide.widths[0] / b for a, b in zip(rank.whole_s, wide.whole_s, strict=True)]
    ratio = Ratio(statistics.median(ratios), min(ratios), max(ratios))
    told = f"an edge costs PageRank {_between(ratio)} what it costs for each of {wide.widths[0]} features"
    return _Found(_at_least(ratio, 2), told, {"ratio": ratio.value})


@_says("as-an-mlp", "finding", "Combination is an MLP's layer")
def _(c: GcnCharacterization) -> _Found | None:
    classic = c.group("classic")
    mlp, dense = only(classic, model="mlp"), only(classic, model="gcn")
    if mlp is None or dense is None:
        return None
    ours = [
        sum(step.cpu_s[i] for step in dense.phases if step.phase == "combination") for i in range(len(dense.whole_s))
    ]
    ratios = [a / b for a, b in zip(ours, mlp.whole_s, strict=True)]
    ratio = Ratio(statistics.median(ratios), min(ratios), max(ratios))
    told = f"a GCN layer's combination takes {_between(ratio)} what a linear layer of the same shape takes"
    return _Found(_agreed([0.7 <= one <= 1.4 for one in ratios]), told, {"ratio": ratio.value})


@_says("phase-order", "software", "Combine first where a layer gets narrower, if it is linear")
def _(c: GcnCharacterization) -> _Found | None:
    pairs = dict(_orders(c.group("widths")))
    much = {w: r for w, r in pairs.items() if w[0] >= _MUCH_NARROWER * w[1]}
    if not much:
        return None
    values = {f"{w[0]} -> {w[1]}": ratio.value for w, ratio in pairs.items()}
    told = ", ".join(f"{name} {value:.2f} times" for name, value in values.items())
    return _Found(
        _worst([_at_least(ratio, GAIN) for ratio in much.values()]),
        f"combine-first against aggregate-first: {told}",
        values,
    )


@_says("no-gain", "software", "The order makes no difference where a layer keeps its width")
def _(c: GcnCharacterization) -> _Found | None:
    equal = {w: r for w, r in _orders(c.group("widths")) if w[0] == w[1]}
    if not equal:
        return None
    values = {f"{w[0]} -> {w[1]}": ratio.value for w, ratio in equal.items()}
    within = [_agreed([1 / 1.25 <= end <= 1.25 for end in (ratio.low, ratio.high)]) for ratio in equal.values()]
    return _Found(_worst(within), "combine-first against aggregate-first: "
                  + ", ".join(f"{name} {value:.2f} times" for name, value in values.items()), values)  # fmt: skip


@_says("by-destination", "software", "Reduce by destination (CSR) rather than scatter")
def _(c: GcnCharacterization) -> _Found | None:
    sums = c.group("features")
    ratios = {}
    for one in sums:
        csr = only(sums, implementation="csr", widths=one.widths)
        if one.implementation == "scatter" and csr is not None:
            ratios[one.widths[0]] = csr.times_faster_than(one)
    if not ratios:
        return None
    told = ", ".join(f"{ratio.value:.1f} times at {width} features" for width, ratio in ratios.items())
    values = {str(width): ratio.value for width, ratio in ratios.items()}
    return _Found(_worst([_at_least(ratio, GAIN) for ratio in ratios.values()]), f"CSR is faster: {told}", values)


@_says("sort-edges", "software", "Where edges are scattered, sort them by destination")
def _(c: GcnCharacterization) -> _Found | None:
    group = c.group("vertex-order")
    return _gain(only(group, detail="edges shuffled"), only(group, implementation="scatter", detail="random"),
                 "a scatter of shuffled edges takes")  # fmt: skip


@_says("reorder", "software", "Put vertices in an order in which neighbours are near (community)")
def _(c: GcnCharacterization) -> _Found | None:
    sums = [one for one in c.group("vertex-order") if one.implementation == "csr"]
    random, ordered = only(sums, detail="random"), only(sums, detail="community")
    found = _gain(random, ordered, "aggregation in random order takes")
    hits = [c.locality("communities", name) for name in ("random", "community")]
    if found is None or None in hits:
        return found
    rows = 1000
    before, after = (one.at(rows)[0] or 0.0 for one in hits if one is not None)
    told = f"{found.evidence} as by community; simulated hits of {rows} rows go from {before:.1%} to {after:.1%}"
    return _Found(found.verdict, told, {**found.values, "hits_random": before, "hits_community": after})


@_says("degree-order", "software", "Put vertices in the order of their degree")
def _(c: GcnCharacterization) -> _Found | None:
    group = c.group("law")
    found = _gain(only(group, graph="power law", implementation="csr", detail="random"),
                  only(group, graph="power law", implementation="csr", detail="degree"),
                  "aggregation over a power-law graph in random order takes")  # fmt: skip
    return found


@_says("pin", "software", "Keep the most used vertices in the cache")
def _(c: GcnCharacterization) -> _Found | None:
    found = c.locality("power law", "random")
    if found is None or not found.accesses:
        return None
    pairs = [(rows, *found.at(rows)) for rows in found.rows if 0 < rows < found.distinct // 2]
    better = [pinned > lru for _, lru, pinned in pairs if lru is not None and pinned is not None]
    if not better:
        return None
    told = "; ".join(
        f"{rows} rows: {lru:.1%} by LRU, {pinned:.1%} pinned" for rows, lru, pinned in pairs if rows in _ROWS
    )
    _, lru, pinned = pairs[0]
    return _Found(
        _agreed(better), f"simulated hits of a power-law graph, {told}", {"lru": lru or 0.0, "pinned": pinned or 0.0}
    )


@_says("tile", "software", "Tile long features, so that neighbours' tiles fit in the cache")
def _(c: GcnCharacterization) -> _Found | None:
    tiled = max(
        (one for one in c.group("features") if one.implementation == "tiled"),
        key=lambda one: one.widths[0],
        default=None,
    )
    if tiled is None:
        return None
    plain = only(c.group("features"), implementation="csr", widths=tiled.widths)
    return _gain(plain, tiled, f"whole rows of {tiled.widths[0]} features take")


@_says("fuse", "software", "Fuse the phases, so that the sums are not written and read again")
def _(c: GcnCharacterization) -> _Found | None:
    group = c.group("fusion")
    return _gain(only(group, detail="two phases"), only(group, detail="fused"), "two phases take")


@_says("balance", "software", "Share out edges, not vertices")
def _(c: GcnCharacterization) -> _Found | None:
    found = [one for one in c.balances if one.workers == _WORKERS]
    if not found:
        return None
    worst = max(found, key=lambda one: one.by_vertices / one.by_edges)
    better = [one.by_edges <= one.by_vertices * 1.001 for one in found]
    verdict: Verdict = "holds" if all(better) and worst.by_vertices > GAIN * worst.by_edges else "does not hold"
    return _Found(
        verdict,
        f"{worst.graph} on {_WORKERS} workers: the busiest has {worst.by_vertices:.2f} times the mean by vertices, "
        f"{worst.by_edges:.2f} by edges; no worse on {sum(better)} of {len(found)} graphs",
        {"by_vertices": worst.by_vertices, "by_edges": worst.by_edges},
    )


@_says("sample", "software", "Sampling neighbours bounds the work of hubs")
def _(c: GcnCharacterization) -> _Found | None:
    group = c.group("fan-out")
    return _gain(
        only(group, detail="all neighbours"), only(group, detail="fan-out 10"), "GraphSAGE over all neighbours takes"
    )


@_says("batch", "software", "A batch of small graphs is gentler to the cache than one large graph")
def _(c: GcnCharacterization) -> _Found | None:
    group = c.group("batch")
    found = _gain(only(group, detail="one large graph"), only(group, detail="small graphs"), "one large graph takes")
    hits = [c.locality(name, "as generated") for name in ("one large graph", "small graphs")]
    if found is None or None in hits:
        return found
    before, after = (one.at(1000)[0] or 0.0 for one in hits if one is not None)
    told = f"{found.evidence}; simulated hits of 1000 rows {before:.1%} against {after:.1%}"
    return _Found(found.verdict, told, {**found.values, "hits_large": before, "hits_small": after})


@_says("two-engines", "hardware", "Engines of their own for the two phases, in a pipeline")
def _(c: GcnCharacterization) -> _Found | None:
    models = [one for one in c.group("models") if one.implementation == "csr"]
    if not models:
        return None
    bounds = [1 / max(one.share("aggregation"), one.share("combination"), 0.5) for one in models]
    told = (
        "one thread runs one phase at a time; were they to overlap fully, models would gain "
        f"{statistics.median(bounds):.2f} times in the median and {max(bounds):.2f} at most"
    )
    return _Found("cannot be seen here", told, {"median": statistics.median(bounds), "most": max(bounds)})


@_says("larger-cache", "hardware", "A larger cache serves aggregation")
def _(c: GcnCharacterization) -> _Found | None:
    found = c.locality("power law", "random")
    if found is None or not found.accesses:
        return None
    small, large = (found.at(rows)[0] or 0.0 for rows in (1000, 4000))
    told = f"simulated hits go from {small:.1%} with 1000 rows to {large:.1%} with 4000"
    return _Found("holds" if large > small + 0.1 else "does not hold", told, {"1000": small, "4000": large})


@_says("atomic-free", "hardware", "Reduction units without atomics")
def _(c: GcnCharacterization) -> _Found | None:
    found = max(c.reductions, key=lambda one: one.conflicts / max(one.atomic, 1), default=None)
    if found is None or not found.atomic:
        return None
    share = found.conflicts / found.atomic
    told = (
        f"one thread needs no atomics; on many, {share:.1%} of {found.graph}'s {found.atomic} scattered additions "
        f"would meet another at their vertex, up to {found.largest} at one"
    )
    return _Found("cannot be seen here", told, {"conflicts": share, "largest": float(found.largest)})


@_says("dram", "hardware", "Coordinated access to DRAM")
def _(c: GcnCharacterization) -> _Found | None:
    return _Found("cannot be seen here", "needs counters of the memory controller, which nothing here reads", {})


def _orders(passes: Sequence[Timed]) -> Iterator[tuple[tuple[int, int], Ratio]]:
    """(F, H) -> how much faster combine-first is, of the layers timed in both orders."""
    for one in passes:
        if one.order == "combine-first":
            other = only(passes, order="aggregate-first", widths=one.widths, model=one.model, graph=one.graph)
            if other is not None:
                yield (one.widths[0], one.widths[-1]), one.times_faster_than(other)


def _gain(slow: Timed | None, fast: Timed | None, what: str) -> _Found | None:
    if slow is None or fast is None:
        return None
    ratio = fast.times_faster_than(slow)
    return _Found(_at_least(ratio, GAIN), f"{what} {_between(ratio)} as long", {"ratio": ratio.value})


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """A statement about several cases holds when it holds in each, and fails only where none shows it."""
    if all(verdict == "holds" for verdict in verdicts):
        return "holds"
    return "does not hold" if all(verdict == "does not hold" for verdict in verdicts) else "cannot be seen here"
