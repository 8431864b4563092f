"""How fast a workload would be on a device that is not here: physics first, an interval on every number."""

from gnomon.core.rooms import make_callable

make_callable(__name__, "gnomon.forecast.predict:forecast")
