"""A clock that tests move by hand."""

from gnomon.measure.clock import Clock


class HandClock:
    """Time stands still but for `tick_ns` per reading and what `advance` adds; `steps_ns` are added per advance."""

    def __init__(self, tick_ns=1, cpu_share=1.0):
        self.wall, self.cpu, self.faults, self.tick_ns, self.cpu_share = 10**9, 10**9, 0, tick_ns, cpu_share

    def advance(self, ns, faults=0):
        self.wall += ns
        self.cpu += round(ns * self.cpu_share)
        self.faults += faults

    def _wall(self):
        self.wall += self.tick_ns
        return self.wall

    def _cpu(self):
        self.cpu += self.tick_ns
        return self.cpu

    @property
    def clock(self):
        return Clock(self._wall, self._cpu, lambda: self.faults)
