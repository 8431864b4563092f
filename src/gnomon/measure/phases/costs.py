"""What the two phases of a graph layer cost by counting, and which order of them is cheaper.

Notation: n vertices, e edges, F features in, H features out. HyGCN (Yan et al. 2020, arXiv:2001.02514) and the
characterization (arXiv:2001.10160) argue with the same counts.
"""

from typing import Literal, NamedTuple

from gnomon.core.errors import UsageError

Order = Literal["aggregate-first", "combine-first"]


class OrderCost(NamedTuple):
    """Multiply-adds of one layer in either order."""

    aggregate_first: int
    combine_first: int

    @property
    def cheaper(self) -> Order | None:
        """None when both cost the same."""
        if self.aggregate_first == self.combine_first:
            return None
        return "combine-first" if self.combine_first < self.aggregate_first else "aggregate-first"


def order_cost(vertices: int, edges: int, features: int, hidden: int) -> OrderCost:
    """Sums over neighbours are as wide as what is summed: F before the dense transform, H after it."""
    if min(vertices, edges) < 0 or min(features, hidden) < 1:
        raise UsageError(f"no layer has {vertices} vertices, {edges} edges, {features} features in and {hidden} out")
    dense = vertices * features * hidden
    return OrderCost(edges * features + dense, dense + edges * hidden)


def order_for(vertices: int, edges: int, features: int, hidden: int, *, is_linear: bool) -> Order | None:
    """The cheaper order, where there is a choice: (A X) W = A (X W) needs a linear sum and a linear transform.

    is_linear: both are (GCN, a mean). A maximum or an MLP leaves only aggregate-first. None: both cost the same.
    """
    return order_cost(vertices, edges, features, hidden).cheaper if is_linear else "aggregate-first"
