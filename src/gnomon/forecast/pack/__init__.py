"""Reads a pack of measured kernels: which devices, which kernels, how long each took, under which way of measuring.

A pack is a folder with `devices.csv` and `kernels.parquet` (fp32, timed by events around a call, so that the host's
launch path is in every figure) and, optionally, `modern/` with `systems.csv` and one table per operator (low precision,
device time alone). Reading needs pyarrow; the columns are described in the README of the pack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gnomon.core.errors import UsageError
from gnomon.forecast.pack.devices import Entry, read_devices
from gnomon.forecast.pack.fp32 import read_kernels
from gnomon.forecast.pack.low_precision import read_modern
from gnomon.forecast.pack.samples import Samples


@dataclass(frozen=True, slots=True)
class Pack:
    """devices: those of `devices.csv`. systems: those of `modern/systems.csv`. samples: every table there is."""

    folder: Path
    devices: Mapping[str, Entry]
    systems: Mapping[str, Entry]
    samples: tuple[Samples, ...]

    def role(self, name: str) -> str:
        """What the pack says a device is for: 'train', 'heldout' or 'spec-only'."""
        entry = self.devices.get(name) or self.systems.get(name)
        return entry.role if entry is not None else ""


def read_pack(folder: Path) -> Pack:
    """Everything in a pack; parts that are not there are empty. Raises UsageError when nothing is."""
    devices = read_devices(folder / "devices.csv") if (folder / "devices.csv").is_file() else {}
    modern = folder / "modern" / "systems.csv"
    systems = read_devices(modern) if modern.is_file() else {}
    if not devices and not systems:
        raise UsageError(f"{folder}: wanted a pack with devices.csv or modern/systems.csv, found neither")
    samples = list(read_modern(folder, systems))
    if (folder / "kernels.parquet").is_file():
        samples = [*read_kernels(folder, devices), *samples]
    return Pack(folder, devices, systems, tuple(samples))
