"""The graphs that the characterization papers use, generated at their published sizes, and Cora itself where it is.

Sizes: Planetoid (Yang et al. 2016) for Cora, Citeseer and Pubmed; Hamilton et al. 2017 for Reddit; TUDataset (Morris et
al. 2020) for IMDB-BINARY and COLLAB. Edges are counted in both directions. Features of the two batches are one-hot
degrees, as usual for data sets without features.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from gnomon.core.errors import DamagedData, UnknownName, did_you_mean
from gnomon.zoo.graph import generate
from gnomon.zoo.graph.graph import Graph

Law = Literal["power law", "uniform"]


@dataclass(frozen=True, slots=True)
class Published:
    """A data set's published size. graphs: 1, or how many small ones; vertices and edges count all of them."""

    name: str
    vertices: int
    edges: int
    features: int
    classes: int
    graphs: int = 1


PUBLISHED = {
    one.name: one
    for one in (
        Published("cora", 2_708, 10_556, 1_433, 7),
        Published("citeseer", 3_327, 9_104, 3_703, 6),
        Published("pubmed", 19_717, 88_648, 500, 3),
        Published("reddit", 232_965, 114_615_892, 602, 41),
        Published("imdb-bin", 19_773, 193_062, 136, 2, graphs=1_000),
        Published("collab", 372_474, 24_574_995, 492, 3, graphs=5_000),
    )
}


class Sample(NamedTuple):
    """A graph to characterise. note: how it was made and what of the published one it is."""

    graph: Graph
    features: int
    classes: int
    origin: Literal["generated", "file"]
    law: str
    note: str


def published(name: str) -> Published:
    """Raises UnknownName with the nearest name."""
    if name not in PUBLISHED:
        near = did_you_mean(name, PUBLISHED)
        raise UnknownName(f"no published graph is called {name!r}.{near} Known: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def generated(name: str, seed: int, *, vertices: int = 1, degree: int = 1, law: Law = "power law") -> Sample:
    """A graph of a published size. vertices, degree: how many times fewer vertices and a smaller mean degree to take.

    Of a data set of small graphs, `vertices` times fewer graphs are taken, and `law` means nothing. Raises UnknownName.
    """
    size = published(name)
    if size.graphs > 1:
        graphs = max(1, size.graphs // vertices)
        each = size.vertices / size.graphs, size.edges / size.graphs / degree
        graph = generate.batch(graphs, *each, seed=seed)
        note = f"{graphs} of {size.graphs} graphs of the mean size, joined" if vertices > 1 else "all graphs, joined"
        note += f", mean degree / {degree}" if degree > 1 else ""
        return Sample(graph, size.features, size.classes, "generated", "batch of uniform graphs", note)
    count, edges = size.vertices // vertices, size.edges // (vertices * degree)
    graph = generate.power_law(count, edges, seed) if law == "power law" else generate.uniform(count, edges, seed)
    scale = [f"{what} / {by}" for what, by in (("vertices", vertices), ("mean degree", degree)) if by > 1]
    return Sample(graph, size.features, size.classes, "generated", law, ", ".join(scale) or "published size")


def cora_file(folder: Path) -> Path:
    """Where a folder of data keeps Cora."""
    return folder / "graphs" / "cora.npz"


def cora(path: Path) -> Sample:
    """The real Cora graph from `cora.npz` (Planetoid). Raises DamagedData when the file is not what it should be."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            edges, shape, labels = arrays["edge_index"], arrays["feature_shape"], arrays["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedData(f"{path}: wanted Cora as arrays edge_index, feature_shape and label ({error})") from error
    graph = Graph.of_edges(int(shape[0]), edges)
    return Sample(graph, int(shape[1]), int(labels.max()) + 1, "file", "as it is", f"from {path.name}")
