"""Measuring a task on this machine: isolated sessions, levels, clocks, and what tracing itself costs."""

from gnomon.core.rooms import make_callable

make_callable(__name__, "gnomon.measure.run:measure")
