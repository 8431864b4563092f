"""Energy of the accelerator: E = sum of n_op e_op + bytes e_SRAM + bytes e_DRAM, each constant with its source.

The constants lie in energy.yaml, at 45 nm. What is on the chip is scaled to another process by capacitance (in
proportion to its length) and by the square of the supply voltage; the scaling and the voltage at 22 nm are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gnomon.core.errors import UsageError
from gnomon.core.records import StructureError, structure

FILE = Path(__file__).with_name("energy.yaml")
PROCESS_M = 22e-9  # DOTA is synthesised at 22 nm
_SUPPLY_V = {45e-9: 0.9, 22e-9: 0.8}  # 45 nm: Horowitz; 22 nm: ours, a usual supply of that generation


@dataclass(frozen=True, slots=True)
class Event:
    """joule: at the file's process. scaled: whether it shrinks with the process. source: a key of the sources."""

    joule: float
    scaled: bool
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Constants:
    """Of every event its energy, at process_m."""

    process_m: float
    sources: Mapping[str, str]
    events: Mapping[str, Event]

    def joule(self, event: str) -> float:
        """Energy of one event at PROCESS_M."""
        found = self.events[event]
        return found.joule * (scaling(self.process_m) if found.scaled else 1.0)

    def total_j(self, counts: Mapping[str, float]) -> float:
        """Energy of these events. Raises KeyError for one that has no constant."""
        return sum(count * self.joule(event) for event, count in counts.items())


def scaling(process_m: float) -> float:
    """Energy at PROCESS_M over energy at `process_m`: C V^2, with C in proportion to the length. Ours."""
    return (PROCESS_M / process_m) * (_SUPPLY_V[PROCESS_M] / _SUPPLY_V[process_m]) ** 2


@cache
def constants(path: Path = FILE) -> Constants:
    """The constants of a file. Raises UsageError naming the file when it is not of this form."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found: Constants = structure(Constants, YAML(typ="safe", pure=True).load(path.read_text("utf-8")))
    except (OSError, YAMLError, StructureError) as error:
        raise UsageError(f"{path}: wanted process_m, sources and events with their energies; got: {error}") from error
    for name, event in found.events.items():
        if event.source not in found.sources or event.joule < 0:
            raise UsageError(f"{path}: events.{name} wants a source out of {', '.join(found.sources)} and joule >= 0")
    if found.process_m not in _SUPPLY_V:
        known = ", ".join(f"{one:g}" for one in _SUPPLY_V)
        raise UsageError(f"{path}: process_m is {found.process_m:g}; a supply voltage is known for {known}")
    return found
