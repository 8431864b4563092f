"""This machine as a `Device`: the CPU's peaks are measured, a GPU is matched with its data sheet.

A CPU has no useful data sheet: its clock follows the load, the machine is shared, and what counts is what the installed
kernels reach. So its "peak" is the best rate seen of large matrix products, and its bandwidth that of STREAM's triad
(McCalpin 1995) written with torch.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gnomon.core.digest import digest
from gnomon.core.errors import DamagedData, NotRunnable, UnknownName, UsageError
from gnomon.core.paths import home
from gnomon.core.records import from_json, to_json
from gnomon.devices import catalogue
from gnomon.devices.device import Device, Quantity
from gnomon.devices.host import Host, host

_METHOD = 1  # raise it when numbers of this file stop being comparable with stored ones
_PRECISIONS = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "int8": torch.int8,
}  # fmt: skip
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look. sizes: sides of the square matrices. seconds: for each quantity. array_bytes: each of the
    triad's three arrays, None for four times the last-level cache."""

    sizes: tuple[int, ...] = (512, 1024, 1536, 2048)
    seconds: float = 1.0
    array_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Operations (or bytes) per second: the best trial, and all of them."""

    best: float
    trials: tuple[float, ...]
    what: str

    def told(self) -> str:
        lower = 100 * (1 - statistics.median(self.trials) / self.best)
        return f"{self.what}, best of {len(self.trials)} trials, median {lower:.0f} % lower"


def host_device(
    refresh: bool = False,
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
    machine: Host | None = None,
    effort: Effort | None = None,
) -> Device:
    """This machine's CPU with measured peaks; kept in `core.paths.home()` for this CPU, its instruction sets, the
    number of threads and the version of torch, and measured again when `refresh` or when the kept file is damaged.

    progress is called with each step's name. One thread is timed by its CPU time, several by wall time.
    Raises UsageError for threads < 1, NotRunnable when the process may not use that many cores.
    """
    machine, effort = machine or host(), effort or Effort()
    if threads < 1:
        raise UsageError(f"threads: wanted at least 1, got {threads}")
    if threads > machine.usable_cores:
        raise NotRunnable(
            f"wanted {threads} threads; this process may use {machine.usable_cores} core(s). Ask for fewer"
        )
    identity = digest([_METHOD, machine.cpu, machine.isa, threads, str(torch.__version__), to_json(effort)])
    kept = home() / f"peaks-{identity[7:23]}.json"
    if not refresh:
        try:
            return from_json(json.loads(kept.read_text(encoding="utf-8")), Device)
        except (OSError, ValueError, DamagedData):
            pass  # never measured, or damaged: measure
    device = _measure(machine, threads, effort, progress or (lambda step: None))
    _keep(kept, device)
    return device


def _keep(path: Path, device: Device) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(json.dumps(to_json(device)), encoding="utf-8")
        part.replace(path)  # readers see the old file or the whole new one
    except OSError:  # a read-only home: measured again next time
        part.unlink(missing_ok=True)


def _measure(machine: Host, threads: int, effort: Effort, progress: Callable[[str], None]) -> Device:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    rates: dict[str, Rate] = {}
    notes: list[str] = []
    try:
        for precision, dtype in _PRECISIONS.items():
            progress(f"matrix product in {precision}")
            try:
                rates[precision] = matrix_product(dtype, effort, clock)
            except RuntimeError as error:
                notes.append(f"{precision} is left out, torch cannot multiply it here: {str(error).splitlines()[0]}")
        progress("memory bandwidth")
        rates["triad"] = triad(_array_bytes(machine, effort), effort.seconds, clock)
    finally:
        torch.set_num_threads(before)

    now = datetime.now(UTC).date().isoformat()
    setting = f"measured here, {now}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"
    sources = {name: f"{setting}: {rate.told()}" for name, rate in rates.items()}
    sources["kernel"] = f"the operating system of this machine, {now} ({machine.system}, kernel {machine.kernel})"
    sources["asked"] = "the number of threads that was asked for"
    peaks = {name: Quantity(rates[name].best, name) for name in _PRECISIONS if name in rates}
    lanes: dict[str, Quantity] = {}
    if machine.vendor == "Apple":
        notes.append("vector_flop_s is left out: matrix products run on a unit of their own here")
    else:  # float32 and float64 products run on the same vector lanes as elementwise work
        lanes = {name: peaks[name] for name in ("float64", "float32") if name in peaks}
    notes.append("Bandwidth counts two reads and one write; the write also reads its line first, which is not counted")
    if machine.frequency_hz is None:
        notes.append("the clock is not known here")
    return Device(
        name=f"{machine.cpu} ({threads} thread{'s' * (threads > 1)}, measured)",
        vendor=machine.vendor,
        kind="cpu",
        architecture=" ".join([machine.architecture, *machine.isa]),
        peak_flop_s=peaks,
        memory_bytes=Quantity(float(machine.usable_memory_bytes or _unknown("memory size")), "kernel"),
        memory_bandwidth_b_s=Quantity(rates["triad"].best, "triad"),
        units=Quantity(float(threads), "asked"),
        clock_hz=Quantity(machine.frequency_hz, "kernel") if machine.frequency_hz else None,
        cache_bytes=Quantity(float(machine.last_cache_bytes), "kernel") if machine.last_cache_bytes else None,
        vector_flop_s=lanes,
        sources=sources,
        notes=tuple(notes),
    )


def _unknown(what: str) -> float:
    raise NotRunnable(
        f"the operating system does not tell this machine's {what}; write a device file and name its path"
    )


def matrix_product(dtype: torch.dtype, effort: Effort, clock: Callable[[], float]) -> Rate:
    """Best rate of square matrix products, 2 n^3 operations each, over the sizes that fit the time.

    A type without hardware support can be 100 times slower, so each size is tried only when the rate seen so far says
    that four calls fit. Raises RuntimeError where torch has no kernel.
    """
    trials: list[tuple[float, int]] = []
    rate = _matrix_trials(dtype, 64, 0.0, clock)[0]
    for size in effort.sizes:
        if 4 * 2 * size**3 / rate > effort.seconds and trials:
            break
        if 4 * 2 * size**3 / rate > effort.seconds:
            size = max(64, int((effort.seconds * rate / 8) ** (1 / 3)) // 64 * 64)
        found = _matrix_trials(dtype, size, effort.seconds / len(effort.sizes), clock)
        trials += [(value, size) for value in found]
        rate = max(found)
    best, size = max(trials)
    of_size = tuple(value for value, side in trials if side == size)
    return Rate(best, of_size, f"product of {size} x {size} matrices")


def _matrix_trials(dtype: torch.dtype, size: int, seconds: float, clock: Callable[[], float]) -> list[float]:
    multiply: Callable[[], Any]
    if dtype == torch.int8:
        a, b = (torch.randint(-128, 128, (size, size), dtype=torch.int8) for _ in range(2))

        def multiply() -> Any:
            return torch._int_mm(a, b)
    else:
        a, b = (torch.rand(size, size).to(dtype) for _ in range(2))
        out = torch.empty(size, size, dtype=dtype)

        def multiply() -> Any:
            return torch.mm(a, b, out=out)

    return _trials(multiply, 2.0 * size**3, seconds, clock)


def triad(array_bytes: int, seconds: float, clock: Callable[[], float]) -> Rate:
    """STREAM's a = b + s c in float32, counted as three arrays of `array_bytes` (two read, one written)."""
    count = array_bytes // _FLOAT_BYTES
    a, b, c = torch.zeros(count), torch.full((count,), 1.0), torch.full((count,), 2.0)  # touched: no page faults later
    rates = _trials(lambda: torch.add(b, c, alpha=3.0, out=a), 3.0 * count * _FLOAT_BYTES, seconds, clock)
    if a[0].item() != 7.0 or a[-1].item() != 7.0:
        raise RuntimeError("the triad computed a wrong result; its time means nothing")
    return Rate(max(rates), tuple(rates), f"triad over three arrays of {array_bytes / 2**20:.0f} MiB")


def _trials(call: Callable[[], Any], work: float, seconds: float, clock: Callable[[], float]) -> list[float]:
    """Rates of at least three trials, of more until `seconds` have passed. The first call sets up and is not timed.

    A trial repeats the call until it lasts a millisecond, far above the resolution of the clock.
    Raises NotRunnable when the clock stands still or runs backwards.
    """

    def timed(repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return clock() - start

    with torch.inference_mode():
        call()
        repeats = 1
        while timed(repeats) < 1e-3 and repeats < 2**12:
            repeats *= 2
        elapsed = [timed(repeats) for _ in range(3)]
        while sum(elapsed) < seconds and min(elapsed) > 0:
            elapsed.append(timed(repeats))
    if min(elapsed) <= 0:
        raise NotRunnable("the clock did not advance during a timed call; peaks cannot be measured on this machine")
    return [work * repeats / seconds_each for seconds_each in elapsed]


def _array_bytes(machine: Host, effort: Effort) -> int:
    """Four times the last-level cache as STREAM asks, within 64 MiB and 1/16 of the memory."""
    if effort.array_bytes is not None:
        return effort.array_bytes
    most = (machine.usable_memory_bytes or 2**32) // 16
    return int(min(max(4 * (machine.last_cache_bytes or 2**25), 2**26), most)) // 64 * 64


# what torch tells of a GPU that the catalogue does not know, by compute capability: float32 lanes of a multiprocessor,
# and dense float16 operations of its matrix units per clock (NVIDIA's architecture white papers)
_LANES = {(6, 0): 64, (6, 1): 128, (7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128,
          (10, 0): 128, (10, 3): 128, (12, 0): 128}  # fmt: skip
_MATRIX = {(7, 0): 1024, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096, (10, 0): 8192,
           (10, 3): 8192, (12, 0): 1024}  # fmt: skip


def gpu_device(index: int = 0, properties: Any = None) -> Device:
    """The GPU `cuda:index` as a Device: the catalogue's entry when name and size agree, else one derived from what
    the driver tells. properties: as `torch.cuda.get_device_properties(index)` gives them.

    Raises NotRunnable when there is no such GPU, or when too little is known of it.
    """
    if properties is None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not 0 <= index < count:
            raise NotRunnable(f"no GPU cuda:{index}; torch sees {count}. `gnomon doctor` says why")
        properties = torch.cuda.get_device_properties(index)
    for name in (properties.name, f"{properties.name}-GCD"):  # AMD's two-die packages appear as two devices
        try:
            device = catalogue.get(name)
        except UnknownName:
            continue
        if device.units.value == properties.multi_processor_count:
            return _with_memory(device, properties)
    return _derived(properties)


def _with_memory(device: Device, properties: Any) -> Device:
    """The entry with the memory that is there: another size under the same name, which 1/16 less by ECC is not."""
    if abs(properties.total_memory / device.memory_bytes.value - 1) < 0.15:
        return device
    sources = {**device.sources, "driver": f"total memory of {properties.name!r} as the driver reports it"}
    return replace(device, memory_bytes=Quantity(float(properties.total_memory), "driver"), sources=sources)


def _derived(properties: Any) -> Device:
    capability = (properties.major, properties.minor)
    clock, memory_clock, bus = (
        getattr(properties, name, None) for name in ("clock_rate", "memory_clock_rate", "memory_bus_width")
    )
    if torch.version.hip is not None or capability not in _LANES or not (clock and memory_clock and bus):
        raise NotRunnable(
            f"{properties.name!r} is not in the catalogue and the driver tells too little of it; "
            "write a device file as the documentation shows and name its path"
        )
    units, clock_hz = properties.multi_processor_count, clock * 1e3
    rate = units * clock_hz
    matrix = rate * _MATRIX.get(capability, 0)
    peaks = {"float32": 2 * rate * _LANES[capability]}
    if capability >= (7, 0):
        peaks["float16"] = matrix
    if capability >= (7, 5):
        peaks["int8"] = 2 * matrix
    if capability >= (8, 0):
        peaks |= {"bfloat16": matrix, "tf32": matrix / 2}
    if capability >= (8, 9):
        peaks["float8"] = 2 * matrix
    if capability >= (10, 0):
        peaks["float4"] = 4 * matrix
    cache = getattr(properties, "L2_cache_size", 0)
    return Device(
        name=properties.name,
        vendor="NVIDIA",
        kind="gpu",
        architecture=f"compute capability {capability[0]}.{capability[1]}",
        peak_flop_s={name: Quantity(value, "derived") for name, value in peaks.items()},
        vector_flop_s={"float32": Quantity(peaks["float32"], "derived")},
        memory_bytes=Quantity(float(properties.total_memory), "driver"),
        memory_bandwidth_b_s=Quantity(2 * memory_clock * 1e3 * bus / 8, "derived"),
        units=Quantity(float(units), "driver"),
        clock_hz=Quantity(clock_hz, "driver"),
        cache_bytes=Quantity(float(cache), "driver") if cache else None,
        sources={
            "driver": "what torch and the driver report of this GPU",
            "derived": "units x clock x operations per clock of the compute capability; not verified for this card",
        },
        notes=(
            "Not in the catalogue. GeForce cards reach half of the derived matrix peaks with float32 accumulation.",
        ),
    )
