"""What an operator costs: floating-point operations and the least traffic to memory, from shapes alone.

Conventions, the same for every model:
- A multiply-add is 2 FLOP. An elementwise operator is 1 FLOP per output element, whether it adds or takes a tanh.
- Traffic is compulsory traffic: each input is read once at the size that it really has (a broadcast row is read as one
  row), each output is written once. Caches, tiling and re-reading are the business of a forecast.
- Views and empty allocations are free. Copies and fills cost bytes, no FLOP. A gather reads the rows that it takes,
  never the whole table.
- Causal or masked attention counts the full score matrix, as the plain matrix products would.
- Sorting counts comparisons: n log2 n of them.

An operator that is in no table here has flop None and category 'unknown', and its operands as traffic.
"""

from gnomon.workload.cost.call import Call, Cost, Operand, traffic
from gnomon.workload.cost.table import RULES

__all__ = ["Call", "Cost", "Operand", "cost"]


def cost(call: Call) -> Cost:
    """FLOP and traffic of one call by the rule of its name; 'aten.add_' takes the rule of 'aten.add'."""
    name = call.name.removeprefix("aten.")
    rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if rule is None:
        return Cost("unknown", None, *traffic(call))
    category, flop, read, written = rule(call)
    return Cost(category, None if flop is None else float(flop), float(read), float(written))
