"""How much a characterization of graph networks looks at, and its graphs. Read by the run and by its sessions."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gnomon.core.errors import UnknownName, did_you_mean
from gnomon.zoo.graph import generate, published
from gnomon.zoo.graph.published import Sample

HIDDEN = 128  # of every model, as in the characterization
WIDE = 128  # features of a sum, where they do not vary
SEED = 0
REAL_CORA = "cora (file)"


@dataclass(frozen=True, slots=True)
class Scale:
    """A published graph, and how many times fewer vertices and a smaller mean degree it is generated with."""

    name: str
    vertices: int = 1
    degree: int = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """graphs: those of the models. vertices, edges: of the graphs on which single properties are explored, 0 vertices
    for none. widths: features of a sum. scattered: those of them that are also scattered, at edges * 4 bytes for each
    feature. layers: (F, H) of a layer timed in both orders. degrees: mean degrees of uniform graphs. fan_outs: sampled
    neighbours. sessions: fresh processes. rounds: of each pass in one.
    """

    name: str
    graphs: tuple[Scale, ...]
    vertices: int
    edges: int
    communities: int
    widths: tuple[int, ...]
    scattered: tuple[int, ...]
    layers: tuple[tuple[int, int], ...]
    degrees: tuple[int, ...]
    fan_outs: tuple[int, ...]
    sessions: int
    rounds: int


_LAYERS = ((16, 16), (64, 64), (128, 128), (512, 128), (1024, 64))

PROFILES: Mapping[str, Profile] = {
    one.name: one
    for one in (
        Profile(
            name="reduced",
            graphs=(
                Scale("cora"), Scale("citeseer"), Scale("pubmed"), Scale("reddit", 128, 8), Scale("imdb-bin", 8),
                Scale("collab", 200),
            ),
            vertices=20_000, edges=219_473, communities=200, widths=(16, 64, 128, 256, 1024), scattered=(16, 64, 128),
            layers=_LAYERS, degrees=(2, 8, 32), fan_outs=(2, 10), sessions=2, rounds=3,
        ),
        Profile(
            name="full",
            graphs=(
                Scale("cora"), Scale("citeseer"), Scale("pubmed"), Scale("reddit", 32, 4), Scale("imdb-bin"),
                Scale("collab", 40),
            ),
            vertices=20_000, edges=219_473, communities=200, widths=(16, 32, 64, 128, 256, 512, 1024),
            scattered=(16, 32, 64, 128, 256), layers=_LAYERS, degrees=(2, 4, 8, 16, 32, 64),
            fan_outs=(2, 5, 10, 25), sessions=5, rounds=7,
        ),
    )
}  # fmt: skip


def profile(name: str) -> Profile:
    """Raises UnknownName with the nearest name."""
    if name not in PROFILES:
        raise UnknownName(f"no profile is called {name!r}.{did_you_mean(name, PROFILES)} Known: {', '.join(PROFILES)}")
    return PROFILES[name]


def sample(scale: Scale) -> Sample:
    """The graph of a scale: the real Cora under its own name, else a generated one. Raises UnknownName, DamagedData."""
    if scale.name == REAL_CORA:
        path = real_cora()
        if path is None:
            raise UnknownName(f"{REAL_CORA}: GNOMON_DATA names no folder with graphs/cora.npz. Generated: cora")
        return published.cora(path)
    return published.generated(scale.name, SEED, vertices=scale.vertices, degree=scale.degree)


def real_cora() -> Path | None:
    """The file of the real Cora, where the folder that GNOMON_DATA names has it."""
    folder = os.environ.get("GNOMON_DATA")
    path = published.cora_file(Path(folder)) if folder else None
    return path if path is not None and path.exists() else None


def explored(what: Profile) -> dict[str, Sample]:
    """The graphs that single properties are explored on, by name."""
    n, e = what.vertices, what.edges
    each = n // what.communities
    near = max(1, min(8, each - 1))
    small = max(1, n // 20)
    joined = generate.batch(small, 20.0, e / n * 20, SEED)
    graphs = {
        "power law": (generate.power_law(n, e, SEED), "power law"),
        "uniform": (generate.uniform(n, e, SEED), "uniform"),
        "communities": (generate.communities(n, what.communities, near, 2, SEED)[0], f"{what.communities} communities"),
        "small graphs": (joined, f"batch of {small} uniform graphs"),
        "one large graph": (generate.uniform(joined.vertices, joined.edges, SEED), "uniform"),
    }
    for degree in what.degrees:
        graphs[f"degree {degree}"] = (generate.uniform(n // 4, n // 4 * degree, SEED), "uniform")
    return {name: Sample(graph, WIDE, HIDDEN, "generated", law, "ours") for name, (graph, law) in graphs.items()}
