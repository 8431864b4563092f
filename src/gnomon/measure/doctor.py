"""What works on this machine, and what each missing part costs."""

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.specifiers import SpecifierSet

from gnomon.core.paths import home
from gnomon.core.units import format_bytes, format_seconds
from gnomon.devices.host import host

SUPPORTED_TORCH = ">=2.9,<=2.13.0"  # as in pyproject.toml, which a plain checkout cannot ask for
SUPPORTED_PYTHON = ">=3.11"
_KEEPS_FROM = 2**30  # thresholds at or above this keep the buffers of every model that one would measure on a CPU
_LEAST_DISK = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the machine. cost: what is lost without it; remedy: how to get it; both '' when all is well."""

    name: str
    status: Literal["ok", "missing", "slow"]
    detail: str
    cost: str = ""
    remedy: str = ""


def examine_host(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """All findings, in the order in which they matter. root: where /proc and /sys are looked for."""
    return [
        python(),
        torch_itself(),
        compiler(environ),
        native_kernels(),
        gpu(),
        attention_backends(),
        *packages(),
        threads(root, environ),
        allocator(root, environ),
        counters(root),
        timer(time.perf_counter),
        writable(home),
        disk(home),
    ]


def python(version: str = platform.python_version()) -> Finding:
    """Is the interpreter within the supported range?"""
    if version in SpecifierSet(SUPPORTED_PYTHON, prereleases=True):
        return Finding("python", "ok", f"{version} ({sys.executable})")
    return Finding("python", "missing", version, "nothing is tested here", f"install Python {SUPPORTED_PYTHON}")


def torch_itself(load: Callable[[], str] | None = None) -> Finding:
    """Does torch import and compute? load: returns its version after a trial computation."""
    remedy = f'pip install "torch{SUPPORTED_TORCH}"'
    try:
        version = (load or _try_torch)()
    except Exception as error:  # a broken installation raises anything from OSError to SystemError
        return Finding("torch", "missing", f"{type(error).__name__}: {error}", "nothing can be measured", remedy)
    if version in SpecifierSet(SUPPORTED_TORCH, prereleases=True):
        return Finding("torch", "ok", version)
    return Finding(
        "torch", "slow", f"{version}, tested with {SUPPORTED_TORCH}", "results are not tested with it", remedy
    )


def _try_torch() -> str:
    import torch

    if (torch.ones(2, 2) @ torch.ones(2, 2)).sum().item() != 8:
        raise RuntimeError("a product of two 2 x 2 matrices came out wrong")
    return str(torch.__version__)


def compiler(environ: Mapping[str, str] = os.environ) -> Finding:
    """Can a C++ compiler make a shared library with OpenMP?"""
    cost = "torch.compile does not run on the CPU, and Gnomon's own kernels fall back to slower references"
    remedy = "install g++ or clang++ (Debian: apt install g++; macOS: xcode-select --install), or set CXX"
    asked = environ.get("CXX")
    found = next(filter(None, map(shutil.which, [asked] if asked else ["c++", "g++", "clang++"])), None)
    if found is None:
        return Finding("c++ compiler", "missing", f"none found{f' as CXX={asked}' if asked else ''}", cost, remedy)
    flags = [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's clang takes it only through the preprocessor
    with tempfile.TemporaryDirectory() as folder:
        command = [found, "-x", "c++", "-std=c++17", "-O1", "-shared", "-fPIC", *flags, "-", "-o", f"{folder}/trial.so"]
        try:
            done = subprocess.run(
                command, input='extern "C" int one() { return 1; }\n', capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError) as error:
            return Finding("c++ compiler", "missing", f"{found} does not run: {error}", cost, remedy)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("c++ compiler", "missing", f"{found} cannot compile a trial file: {said}", cost, remedy)
    return Finding("c++ compiler", "ok", found)


def native_kernels(why_not: Callable[[], str | None] | None = None) -> Finding:
    """Do Gnomon's C++ kernels build and load? why_not: the reason if they do not; None asks the largest of them."""
    name, cost = "native kernels", "attention kernels of Gnomon's own run their slow references on the CPU"
    try:
        from gnomon.kernels import _native
        from gnomon.kernels.neighborhood_attention import cpu
    except Exception:
        return Finding(name, "missing", "torch does not import", cost, "mend torch first")
    reason = (why_not or cpu.KERNELS.why_not)()
    if reason is None:
        return Finding(name, "ok", f"built for {_native.isas()[0]} with {_native.compiler()}")
    return Finding(name, "missing", reason.splitlines()[0], cost, "mend the C++ compiler, or set CXX to another")


def attention_backends() -> Finding:
    """Who can run neighborhood attention on this machine's best device, and why the others cannot."""
    name = "attention backends"
    try:
        import torch

        from gnomon.kernels.neighborhood_attention import Case, Problem
        from gnomon.kernels.neighborhood_attention.backends import reasons
    except Exception:
        return Finding(name, "missing", "torch does not import", "nothing attends", "mend torch first")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = reasons(Case(Problem.of((32, 32), 7), 1, 4, 4, 32, 32, torch.float32, device))
    able = ", ".join(backend for backend, reason in found.items() if reason is None)
    refused = "".join(f"; {backend}: {reason}" for backend, reason in found.items() if reason is not None)
    return Finding(name, "ok", f"{able} on {device}{refused}")


def gpu() -> Finding:
    """Does torch reach a GPU, and if not, is that for want of a card, a driver, or the right build of torch?"""
    cost = "GPU times are forecast only, never measured"
    try:
        import torch
    except Exception:
        return Finding("gpu", "missing", "torch does not import", cost, "mend torch first")
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        build = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return Finding("gpu", "ok", f"{count} x {torch.cuda.get_device_name(0)}, {build}")
    cards = host().gpus
    if not cards:
        return Finding("gpu", "missing", "no CUDA or ROCm device", cost, "run the same command on a machine with a GPU")
    built = torch.version.cuda or torch.version.hip
    why = f"torch is built for {built}, driver {cards[0].driver}" if built else "this torch is built for the CPU only"
    return Finding(
        "gpu", "missing", f"{cards[0].name} is there, but {why}", cost, "install torch built for this driver"
    )


_PACKAGES = {  # package -> what is lost without it, how to get it
    "transformers": ("models by Hugging Face configuration, and tasks that use them", "pip install 'gnomon[models]'"),
    "safetensors": ("loading trained weights", "pip install 'gnomon[models]'"),
    "onnxruntime": ("ONNX Runtime as a baseline and its recipes", "pip install 'gnomon[onnx]'"),
    "triton": ("GPU kernels and torch.compile on a GPU; the CPU needs none", "it comes with the CUDA build of torch"),
    "matplotlib": ("pictures in reports", "pip install matplotlib"),
}


def packages(find: Callable[[str], object | None] = importlib.util.find_spec) -> list[Finding]:
    """The optional packages, looked up without importing them."""
    findings = []
    for name, (cost, remedy) in _PACKAGES.items():
        if find(name) is None:
            findings.append(Finding(name, "missing", "not installed", cost, remedy))
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "installed, version not known"
        findings.append(Finding(name, "ok", version))
    return findings


def threads(root: Path = Path("/"), environ: Mapping[str, str] = os.environ, used: int | None = None) -> Finding:
    """More threads than cores wait for each other. used: torch's threads, asked of torch when None."""
    machine = host(root)
    if used is None:
        try:
            import torch

            used = torch.get_num_threads()
        except Exception:
            used = 1
    cores = machine.usable_cores
    setting = (
        f"OMP_NUM_THREADS={environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in environ else "OMP_NUM_THREADS not set"
    )
    quota = f", {machine.cpu_quota:g} CPUs' worth of time granted" if machine.cpu_quota is not None else ""
    detail = f"{cores} of {machine.cpus} cores usable{quota}; torch would use {used} ({setting})"
    if used > cores:
        cost = "threads wait for each other: calls take longer and their times scatter"
        return Finding("threads", "slow", detail, cost, f"set OMP_NUM_THREADS={cores}")
    return Finding("threads", "ok", detail)


def allocator(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Finding:
    """Does memory of a freed tensor stay with the process, or is it faulted in anew at every call?"""
    regime = _regime(root, environ)
    if regime.keeps:
        return Finding("allocator", "ok", regime.text)
    cost = (
        "each fresh tensor over 32 MiB is mapped and zeroed page by page: adding 1 to 64 MiB took 16,385 page faults "
        "and 55 ms, where kept memory took none and 14 ms (glibc 2.36, one core of a 2.5 GHz Xeon)"
    )
    remedy = (
        "write into existing tensors (out=, in place), start with MALLOC_MMAP_MAX_=0 "
        "MALLOC_TRIM_THRESHOLD_=100000000000, or preload jemalloc or tcmalloc; compare within one regime only"
    )
    return Finding("allocator", "slow", regime.text, cost, remedy)


def allocator_regime(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """One line for a measurement's environment: which allocator serves tensors, whether it keeps memory, page size."""
    return _regime(root, environ).text


@dataclass(frozen=True, slots=True)
class _Regime:
    text: str
    keeps: bool


def _regime(root: Path, environ: Mapping[str, str]) -> _Regime:
    pages = _pages(root, environ)
    preloaded = _preloaded(root, environ)
    if preloaded:
        return _Regime(f"{preloaded}, freed memory is kept for a while; {pages}", True)
    libc, version = platform.libc_ver()
    if libc != "glibc":
        name = "macOS malloc" if sys.platform == "darwin" else "the C library's malloc"
        return _Regime(f"{name}; {pages}", True)
    tunables = dict(pair.split("=", 1) for pair in environ.get("GLIBC_TUNABLES", "").split(":") if pair.count("=") == 1)

    def setting(variable: str, tunable: str) -> int | None:
        text = tunables.get(f"glibc.malloc.{tunable}", environ.get(variable, ""))
        return int(text, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", text) else None

    trim = setting("MALLOC_TRIM_THRESHOLD_", "trim_threshold")
    threshold = setting("MALLOC_MMAP_THRESHOLD_", "mmap_threshold")
    never_mapped = setting("MALLOC_MMAP_MAX_", "mmap_max") == 0 or (threshold or 0) >= _KEEPS_FROM
    keeps = never_mapped and (trim or 0) >= _KEEPS_FROM  # either alone changes little: measured
    fate = "is kept" if keeps else "over 32 MiB goes back to the system"
    return _Regime(f"glibc {version} malloc, freed memory {fate}; {pages}", keeps)


def _preloaded(root: Path, environ: Mapping[str, str]) -> str | None:
    """The allocator that is mapped into this process, or asked for in LD_PRELOAD where /proc is missing."""
    try:
        mapped = (root / "proc/self/maps").read_text(errors="replace")
    except OSError:
        mapped = environ.get("LD_PRELOAD", "") + environ.get("DYLD_INSERT_LIBRARIES", "")
    return next(
        (name for name in ("jemalloc", "tcmalloc", "mimalloc") if re.search(rf"/lib{name}[^/\s]*", mapped)), None
    )


def _pages(root: Path, environ: Mapping[str, str]) -> str:
    size = format_bytes(os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else "small"
    try:
        modes = (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return f"{size} pages"
    chosen = re.search(r"\[(\w+)\]", modes)
    mode = chosen[1] if chosen else modes.strip()
    asked = environ.get("THP_MEM_ALLOC_ENABLE") == "1" or "glibc.malloc.hugetlb=1" in environ.get("GLIBC_TUNABLES", "")
    is_huge = mode == "always" or (mode == "madvise" and asked)
    return f"{'transparent huge' if is_huge else size} pages (transparent_hugepage {mode})"


def counters(root: Path = Path("/"), attempt: Callable[[], str | None] | None = None) -> Finding:
    """Can this process count its instructions? attempt: returns None when it can, else the reason."""
    cost = "times cannot be told apart from clock changes by instructions and cache misses; CPU time is used instead"
    reason = (attempt or _count_instructions)()
    if reason is None:
        return Finding("hardware counters", "ok", "instructions can be counted")
    try:
        level = int((root / "proc/sys/kernel/perf_event_paranoid").read_text())
    except (OSError, ValueError):
        return Finding(
            "hardware counters", "missing", reason, cost, "use Linux on bare metal, or a guest with a virtual PMU"
        )
    if level > 2:  # Debian's and Android's 3 closes even a process's own counters
        remedy = "sysctl kernel.perf_event_paranoid=2 (as root)"
    else:
        remedy = "a virtual machine needs a virtual PMU, a container the system call perf_event_open (seccomp)"
    return Finding("hardware counters", "missing", f"{reason}; perf_event_paranoid is {level}", cost, remedy)


def _count_instructions() -> str | None:
    """Open a counter of this process's user-mode instructions, as perf_event_open(2) describes; the reason it fails."""
    number = {"x86_64": 298, "aarch64": 241}.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return f"no perf_event_open on {platform.system()} {platform.machine()}"
    exclude_kernel_and_hypervisor = 1 << 5 | 1 << 6
    # struct perf_event_attr of version 0: type 0 hardware, 64 bytes, config 1 instructions
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIQQQQQIIQ", 0, 64, 1, 0, 0, 0, exclude_kernel_and_hypervisor, 0, 0, 0)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    arguments = [ctypes.c_long(value) for value in (0, -1, -1, 0)]  # this process, any CPU, no group, no flags
    descriptor = libc.syscall(ctypes.c_long(number), attributes, *arguments)
    if descriptor < 0:
        return f"perf_event_open: {os.strerror(ctypes.get_errno())}"
    try:
        counted = struct.unpack("<Q", os.read(descriptor, 8))[0]
    except OSError as error:
        return f"the counter cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)
    return None if counted > 0 else "the counter stays at 0"


def timer(clock: Callable[[], float] = time.perf_counter) -> Finding:
    """The smallest step of the clock that calls are timed with, the least of 100 steps seen."""
    steps = []
    for _ in range(100):
        start = now = clock()
        for _ in range(1_000_000):
            now = clock()
            if now != start:
                break
        steps.append(now - start)
    step = min(steps)
    if step <= 0:
        return Finding(
            "timer", "missing", "the clock does not advance", "nothing can be timed", "run on another machine"
        )
    detail = f"two readings differ by {format_seconds(step)} at least"
    if step <= 1e-6:
        return Finding("timer", "ok", detail)
    source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    return Finding("timer", "slow", detail, "short calls are timed in batches only", f"see {source}; tsc is best")


def writable(folder: Callable[[], Path] = home) -> Finding:
    """Can results be kept?"""
    cost = "results are not kept, and everything is measured again each time"
    remedy = "set GNOMON_HOME to a folder that you may write to"
    try:
        place = folder()
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"gnomon")
    except OSError as error:
        return Finding("store", "missing", f"{error.filename or ''}: {error.strerror}".lstrip(": "), cost, remedy)
    return Finding("store", "ok", str(place))


def disk(folder: Callable[[], Path] = home) -> Finding:
    """Is there room for results, compiled kernels and exported models?"""
    try:
        free = shutil.disk_usage(folder()).free
    except OSError as error:
        return Finding("disk", "missing", str(error), "results cannot be kept", "set GNOMON_HOME to another disk")
    if free >= _LEAST_DISK:
        return Finding("disk", "ok", f"{format_bytes(free)} free")
    return Finding(
        "disk", "slow", f"{format_bytes(free)} free", "exports and caches may not fit", "free 1 GiB, or set GNOMON_HOME"
    )
