"""The devices of a pack: the numbers of its table, and the rest from the nearest device of the catalogue."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gnomon.core.errors import UnknownName, UsageError, did_you_mean
from gnomon.devices import catalogue, sanity
from gnomon.devices.device import Device, Quantity

_SOURCE = "pack"


@dataclass(frozen=True, slots=True)
class Entry:
    """A device of a pack. role: 'train', 'heldout' or 'spec-only'."""

    device: Device
    role: str


def read_devices(path: Path) -> dict[str, Entry]:
    """The devices of `devices.csv` (fp32 pack) or `systems.csv` (its `modern` part), by the name that rows use.

    A table says little about units, caches and process of a system; these are taken from the device of the catalogue
    whose numbers are nearest. Raises UsageError naming file, device and column for a number that is missing or absurd.
    """
    rows = _rows(path)
    if rows and "system" in rows[0]:
        return {row["system"]: Entry(_system(path, row), row.get("role", "")) for row in rows}
    if rows and "device" in rows[0]:
        return {row["device"]: Entry(_device(path, row), row.get("role", "")) for row in rows}
    raise UsageError(f"{path}: wanted a table with a column `device` or `system` and at least one row")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Wanted a table of devices") from None


def _device(path: Path, row: Mapping[str, str]) -> Device:
    number = _reader(path, row["device"], row)
    matrix = number("fp32_matrix_gflops", 1e9) if row.get("fp32_matrix_gflops") else number("fp32_gflops", 1e9)
    vector = number("fp32_vector_gflops", 1e9) if row.get("fp32_vector_gflops") else matrix
    return _checked(path, Device(
        name=row["device"], vendor=row.get("vendor", ""), kind="gpu", architecture="",
        peak_flop_s={"float32": matrix}, vector_flop_s={"float32": vector},
        memory_bytes=number("mem_gb", 1e9), memory_bandwidth_b_s=number("mem_bw_gbs", 1e9), units=number("num_sm", 1),
        clock_hz=number("freq_mhz", 1e6), cache_bytes=number("l2_mb", 2**20),
        tdp_w=number("tdp_w", 1) if row.get("tdp_w") else None, sources={_SOURCE: path.name},
    ))  # fmt: skip


def _system(path: Path, row: Mapping[str, str]) -> Device:
    number = _reader(path, row["system"], row)
    columns = {"bfloat16": "bf16_tflops", "int8": "int8_tops", "float8": "fp8_tflops", "float4": "fp4_tflops"}
    peaks = {name: number(column, 1e12) for name, column in columns.items() if float(row.get(column) or 0) > 0}
    if "bfloat16" not in peaks:
        raise UsageError(
            f"{path}: {row['system']}: bf16_tflops: wanted a positive number, got {row.get('bf16_tflops')}"
        )
    peaks["float16"] = peaks["bfloat16"]
    bare = Device(
        name=row["system"], vendor="nvidia", kind="gpu", architecture="", peak_flop_s=peaks,
        memory_bytes=number("mem_gib", 2**30), memory_bandwidth_b_s=number("mem_bw_gbs", 1e9),
        units=Quantity(1.0, _SOURCE), tdp_w=number("tdp_w", 1), link_b_s=number("intra_node_gbs", 1e9),
        sources={_SOURCE: path.name},
    )  # fmt: skip
    kin = nearest(bare)
    lanes = {"float32": Quantity(kin.vector("float32"), _SOURCE)}
    return replace(
        bare, units=kin.units, clock_hz=kin.clock_hz, cache_bytes=kin.cache_bytes, process_m=kin.process_m,
        vector_flop_s=lanes, peak_flop_s={**peaks, **lanes},
    )  # fmt: skip


def _reader(path: Path, name: str, row: Mapping[str, str]) -> Callable[[str, float], Quantity]:
    def number(column: str, unit: float) -> Quantity:
        text = row.get(column) or ""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise UsageError(f"{path}: {name}: {column}: wanted a positive number, got {text!r}")
        return Quantity(value * unit, _SOURCE)

    return number


def _checked(path: Path, device: Device) -> Device:
    problems = sanity.contradictions(device)
    if problems:
        raise UsageError(f"{path}: {device.name}: {problems[0].where}: {problems[0].message}")
    kin = nearest(device)
    half = {p: q for p, q in kin.peak_flop_s.items() if p in ("float16", "bfloat16", "tf32")}
    return replace(
        device, process_m=kin.process_m, tdp_w=device.tdp_w or kin.tdp_w, peak_flop_s={**half, **device.peak_flop_s}
    )


def nearest(device: Device) -> Device:
    """The device of the catalogue whose numbers, not its name, are nearest: memory, bandwidth, peaks, power limit."""

    def distance(known: Device) -> float:
        apart = [abs(np.log(known.memory_bandwidth_b_s.value / device.memory_bandwidth_b_s.value))]
        apart.append(0.3 * abs(np.log(known.memory_bytes.value / device.memory_bytes.value)))
        apart += [
            abs(np.log(known.peak_flop_s[p].value / device.peak_flop_s[p].value))
            for p in ("bfloat16", "float32")
            if p in known.peak_flop_s and p in device.peak_flop_s
        ] or [2.0]
        for field in ("clock_hz", "cache_bytes", "tdp_w"):
            ours, theirs = getattr(device, field), getattr(known, field)
            if ours is not None and theirs is not None:
                apart.append(abs(np.log(ours.value / theirs.value)))
        return float(np.mean(apart))

    return min(catalogue.every(), key=distance)


def find_device(path: Path, name: str) -> Device:
    """The device of a table by its name. Raises UnknownName with the nearest names."""
    devices = read_devices(path)
    if name not in devices:
        raise UnknownName(f"{path}: no device is called {name!r}.{did_you_mean(name, devices)} "
                          f"It has {', '.join(devices)}")  # fmt: skip
    return devices[name].device
