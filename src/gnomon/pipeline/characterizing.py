"""Characterize graph networks on this machine: where the time goes, what a cache would keep, what follows from it."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from gnomon.core.errors import UnknownName, UsageError, did_you_mean
from gnomon.core.process import JSON, call
from gnomon.core.records import structure, to_json
from gnomon.devices.device import Device
from gnomon.devices.host import Host, host
from gnomon.measure.phases.advice import advise
from gnomon.measure.phases.balance import imbalance, reductions
from gnomon.measure.phases.cache import Reuse, rows_of
from gnomon.measure.phases.checks import check
from gnomon.measure.phases.record import (
    Balance,
    GcnCharacterization,
    GraphFacts,
    Locality,
    PhaseTime,
    Reduced,
    Timed,
)
from gnomon.measure.record import Environment
from gnomon.pipeline import _gcn_profile as profiles
from gnomon.pipeline._gcn_profile import Profile, Scale
from gnomon.pipeline._progress import Progress, silent
from gnomon.pipeline.measuring import this_machine
from gnomon.store.store import Run
from gnomon.zoo.graph import published
from gnomon.zoo.graph.order import ORDERS
from gnomon.zoo.graph.published import Sample

MODELS = ("gcn", "graphsage", "gin", "gat")
_ROWS = (250, 1000, 4000)  # capacities that the method's card uses
_WORKERS = (2, 4, 8, 16, 32, 64)
_TIMEOUT_S = 1800.0
# fresh pages for every intermediate would be most of what a scatter is timed for
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
_ASSUMED = {"L2 (assumed)": 2**20}


def characterize_gcn(
    run: Run,
    profile: str | Profile = "reduced",
    *,
    models: Sequence[str] = (),
    graphs: Sequence[str] = (),
    sessions: int | None = None,
    explore: bool = True,
    device: Device | None = None,
    progress: Progress = silent,
) -> GcnCharacterization:
    """Measure aggregation and combination of graph networks, simulate their cache, and check the papers' guidelines.

    profile: its name, or one of your own. models: some of MODELS; graphs: some of the profile's, "cora (file)" for the
    real one; all when empty. sessions: fresh processes. explore: also single properties, such as width or order.
    device: what is known of this machine; measured when not given.
    Raises UnknownName, UsageError for no session, and what a session raises.
    """
    what = profiles.profile(profile) if isinstance(profile, str) else profile
    what = what if explore else replace(what, vertices=0)
    count = what.sessions if sessions is None else sessions
    if count < 1:
        raise UsageError(f"a characterization takes at least 1 session; got {count}")
    kinds, scales = _chosen("model", models, MODELS), _scales(what, graphs)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if device is None:
        progress("measuring this machine's peaks (kept for later runs)")
        device = this_machine(1, run, progress)
    caches = _caches(host())
    progress("generating graphs and simulating their caches")
    of_models = {scale.name: profiles.sample(scale) for scale in scales}
    explored = profiles.explored(what) if what.vertices else {}
    samples = {**of_models, **explored}
    orders = _orders(explored)
    measured = [
        _session(what, scales, kinds, orders, i, lambda text, i=i: progress(f"session {i + 1} of {count}: {text}"))  # type: ignore[misc]
        for i in range(count)
    ]
    found = GcnCharacterization(
        profile=what.name,
        seed=profiles.SEED,
        device=device,
        caches=caches,
        graphs=tuple(_facts(name, one) for name, one in samples.items()),
        timed=_merged([[structure(Timed, one) for one in result["timed"]] for result in measured]),
        localities=tuple(_localities(what, of_models, explored, orders, caches)),
        balances=tuple(_balances(samples)),
        reductions=tuple(_reduced(samples)),
        checks=(),
        advice=(),
        environment=_environment(started, measured[0]["allocator"]),
        left_out=tuple(dict.fromkeys(text for result in measured for text in result["left_out"])),
    )
    found = replace(found, checks=check(found), advice=advise(found), warnings=tuple(_warnings(found)))
    run.add(found)
    return found


def _chosen(what: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise UnknownName(f"no {what} is called {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
    return [name for name in known if name in names] if names else list(known)


def _scales(what: Profile, names: Sequence[str]) -> list[Scale]:
    """The graphs of the models: the profile's, and the real Cora where its file is."""
    known = list(what.graphs)
    if what.graphs and (profiles.real_cora() is not None or profiles.REAL_CORA in names):
        known.append(Scale(profiles.REAL_CORA))
    chosen = _chosen("graph", names, [scale.name for scale in known])
    return [scale for scale in known if scale.name in chosen]


def _session(
    what: Profile, scales: list[Scale], models: list[str], orders: dict[str, list[int]], seed: int, progress: Progress
) -> JSON:
    arguments = {
        "profile": to_json(what),
        "graphs": [to_json(scale) for scale in scales],
        "models": models,
        "orders": orders,
        "seed": seed,
    }
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **_KEPT_MEMORY}
    target = "gnomon.pipeline._gcn_session:session"
    return call(target, arguments, timeout_s=_TIMEOUT_S, env=env, on_progress=progress)


def _merged(sessions: list[list[Timed]]) -> tuple[Timed, ...]:
    """The same passes of every session as one each."""
    merged = []
    for same in zip(*sessions, strict=True):
        phases = tuple(
            PhaseTime(steps[0].layer, steps[0].phase, tuple(step.cpu_s[0] for step in steps), steps[0].flop,
                      steps[0].bytes_moved)
            for steps in zip(*(one.phases for one in same), strict=True)
        )  # fmt: skip
        whole = tuple(one.whole_s[0] for one in same)
        merged.append(replace(same[0], phases=phases, whole_s=whole, cover=statistics.median(o.cover for o in same)))
    return tuple(merged)


def _orders(explored: dict[str, Sample]) -> dict[str, list[int]]:
    """Orders of the graph of communities by name, and of the power-law graph by its degrees."""
    if not explored:
        return {}
    found = {name: find(explored["communities"].graph).tolist() for name, find in ORDERS.items()}
    found["power law: degree"] = ORDERS["degree"](explored["power law"].graph).tolist()
    return found


def _facts(name: str, one: Sample) -> GraphFacts:
    graph, size = one.graph, published.PUBLISHED.get("cora" if one.origin == "file" else name)
    return GraphFacts(
        name=name,
        origin=one.origin,
        law=one.law,
        note=one.note,
        vertices=graph.vertices,
        edges=graph.edges,
        features=one.features,
        mean_degree=graph.edges / max(graph.vertices, 1),
        largest_degree=int(graph.degrees.max(initial=0)),
        published_vertices=size.vertices if size else None,
        published_edges=size.edges if size else None,
    )


def _localities(
    what: Profile,
    of_models: dict[str, Sample],
    explored: dict[str, Sample],
    orders: dict[str, list[int]],
    caches: dict[str, int],
) -> list[Locality]:
    import numpy as np

    def look(graph: str, vertex_order: str, ids: Any, edge_order: str = "by destination") -> Locality:
        widths = {profiles.WIDE, *what.widths, *((of_models[graph].features,) if graph in of_models else ())}
        rows = tuple(sorted({*_ROWS, *(rows_of(size, width) for size in caches.values() for width in widths)}))
        reuse = Reuse.of(ids)
        return Locality(
            graph, vertex_order, edge_order, reuse.accesses, reuse.distinct, rows,
            tuple(reuse.hit_ratio(r) for r in rows), tuple(reuse.pinned_ratio(r) for r in rows), reuse.histogram(),
        )  # fmt: skip

    found = [look(name, "as generated" if one.origin == "generated" else "as in the file", one.graph.sources)
             for name, one in of_models.items()]  # fmt: skip
    if not explored:
        return found
    law, near = explored["power law"].graph, explored["communities"].graph
    found.append(look("power law", "random", law.sources))  # generated with random names
    found.append(look("power law", "degree", law.renamed(np.array(orders["power law: degree"])).sources))
    for name, order in orders.items():
        if name in ORDERS:
            found.append(look("communities", name, near.renamed(np.array(order)).sources))
    shuffled = np.random.default_rng(profiles.SEED).permutation(near.sources)
    found.append(look("communities", "random", shuffled, "shuffled"))
    for name in ("uniform", "small graphs", "one large graph"):
        found.append(look(name, "as generated", explored[name].graph.sources))
    return found


def _balances(samples: dict[str, Sample]) -> list[Balance]:
    return [
        Balance(name, workers, *imbalance(one.graph.degrees, workers))
        for name, one in samples.items()
        for workers in _WORKERS
    ]


def _reduced(samples: dict[str, Sample]) -> list[Reduced]:
    return [Reduced(name, *reductions(one.graph.degrees)) for name, one in samples.items()]


def _caches(machine: Host) -> dict[str, int]:
    """The second-level cache and the last one; a megabyte is assumed where the system tells of none."""
    data = {f"L{cache.level}": cache.size_bytes for cache in machine.caches if cache.kind != "instruction"}
    known = {name: size for name, size in sorted(data.items()) if name >= "L2"}
    return known or dict(_ASSUMED)


def _environment(started_at: str, allocator: str) -> Environment:
    versions = {package: metadata.version(package) for package in ("torch", "numpy")}
    return Environment(to_json(host()), platform.python_version(), versions, 1, allocator, "cpu", started_at)


def _warnings(found: GcnCharacterization) -> list[str]:
    warnings = []
    off = [one for one in found.timed if abs(one.cover - 1) > 0.05]
    if off:
        worst = max(off, key=lambda one: abs(one.cover - 1))
        warnings.append(
            f"{len(off)} of {len(found.timed)} passes have phases whose times differ by more than 5 % from the whole "
            f"beside them, most {worst.model} on {worst.graph} ({worst.detail}): {worst.cover:.2f} times. Is the "
            "machine busy? Measure again when it is quiet"
        )
    if any("assumed" in name for name in found.caches):
        warnings.append("the system tells of no caches; hit ratios are for a second level of 1 MiB")
    if found.timed and len(found.timed[0].whole_s) < 2:
        warnings.append("one session cannot show what differs between sessions; verdicts rest on it alone")
    return warnings
