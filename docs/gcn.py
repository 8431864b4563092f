"""Writes docs/gcn.md, its tables from a stored run: `python docs/gcn.py`. A test keeps the page up to date."""

import json
from pathlib import Path

from gnomon.core.records import from_json
from gnomon.measure.phases.record import GcnCharacterization
from gnomon.report.characterization import markdown

PAGE = Path(__file__).with_name("gcn.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "gcn.json"
HEAD = """# Graph networks

Written by `python docs/gcn.py`; its tables come from a stored run and no figure is typed.

```text
gnomon characterize gcn
gnomon characterize gcn --profile full --graph pubmed --model gcn --out gcn.json
python benchmarks/gcn.py
```

A graph network's layer has two phases. **Aggregation** gathers and sums what the neighbours of every vertex hold: its
accesses follow the graph, and it computes less than half a FLOP for each byte. **Combination** multiplies every
vertex's features by shared weights: a matrix product. The characterization (Yan et al. 2020, arXiv:2001.10160, with
HyGCN, arXiv:2001.02514) measures the two apart and draws guidelines from it. This command does so on the machine at
hand: every guideline becomes a check that holds here, does not hold, or cannot be seen here, and where it pays,
advice with the gain that was measured.

## What is measured

GCN, GraphSAGE (mean), GIN and GAT, two layers, 128 hidden features, on graphs generated at the published sizes of
Cora, Citeseer, Pubmed, Reddit, IMDB-BINARY and COLLAB, the larger ones smaller by a factor that the table states.
Where `GNOMON_DATA` names a folder with `graphs/cora.npz`, the real Cora is a row of its own. Features are normal
numbers; those of real data sets are sparse, which none of these models makes use of.

Each session is a fresh process with one thread. What is compared is interleaved round by round. Each phase is timed
where it runs, with what the phase before left in the caches, and the whole pass is timed beside it: where the two
differ by more than 5 %, a warning says so. Times are CPU times. Freed memory is kept by the process, so that no phase
pays for fresh pages. A statement about times holds when every session shows it, and cannot be seen when sessions
disagree.

```python
import torch

from gnomon.zoo.graph.generate import power_law
from gnomon.zoo.graph.layers import network
from gnomon.zoo.graph.neighbours import Csr, Scatter

graph = power_law(1000, 8000, seed=0, largest=200)
model = network("gcn", [64, 16, 7], seed=0)
x = torch.randn(1000, 64)
with torch.inference_mode():
    by_csr = model(x, model.prepare(graph, Csr), "combine-first")
    by_scatter = model(x, model.prepare(graph, Scatter), "aggregate-first")
torch.testing.assert_close(by_csr, by_scatter, rtol=1e-4, atol=1e-4)  # A (X W) = (A X) W
```

Orders are legal where the sum and the transform are both linear. A maximum over neighbours and GIN's MLP are not, and
asking for the other order is an error that says so. The cost model counts e F + n F H multiply-adds for
aggregate-first and n F H + e H for combine-first, so its advice flips where F exceeds H:

```python
from gnomon.measure.phases.costs import order_for

assert order_for(2708, 10556, 1433, 128, is_linear=True) == "combine-first"
assert order_for(2708, 10556, 64, 128, is_linear=True) == "aggregate-first"
assert order_for(2708, 10556, 1433, 128, is_linear=False) == "aggregate-first"
```

## What is simulated

The ids of the neighbours, in the order in which aggregation reads them, are a stream of row accesses. The stack
distance of each access (how many other rows were touched since its row was last touched) gives the hit ratio of an
LRU cache of every size at once, the same on every machine. Beside it stands what a cache would hit that always held
the most used rows.

```python
from gnomon.measure.phases.cache import Reuse
from gnomon.zoo.graph.order import by_degree

reuse = Reuse.of(graph.sources)
assert reuse.hit_ratio(1000) == (reuse.accesses - reuse.distinct) / reuse.accesses
assert reuse.hit_ratio(50) < reuse.hit_ratio(200) < reuse.pinned_ratio(200)
ordered = graph.renamed(by_degree(graph))
assert Reuse.of(ordered.sources).pinned_ratio(50) == reuse.pinned_ratio(50)  # names change nothing there
```

Bytes are counted as if every neighbour's row came from memory. Where a phase reaches more than 100 % of this machine's
roofline in the tables, many rows came from a cache.

Counted are also the additions that a scatter makes into rows that others add to as well, and how evenly vertices or
edges fall on workers. What needs a GPU or counters of the memory controller cannot be seen here, and says so."""


def page() -> str:
    """The whole page, as MyST."""
    document = json.loads(RESULTS.read_text("utf-8"))
    found: GcnCharacterization = from_json(document["characterization"], GcnCharacterization)
    where, versions = found.environment, found.environment.packages
    sessions = len(found.timed[0].whole_s)
    taken = (
        f"The tables below: profile {found.profile}, {sessions} sessions, {found.device.name}, "
        f"torch {versions['torch']}, {where.started_at[:10]}, {where.allocator}.\n"
    )
    warnings = "".join(f"\nWarning of the run: {text}.\n" for text in found.warnings)
    return f"{HEAD}\n{taken}{warnings}\n{markdown(found)}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}")
