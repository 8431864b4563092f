"""How fast a workload would be on a device that is not here: physics first, an interval on every number."""
