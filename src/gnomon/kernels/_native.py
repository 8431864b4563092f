"""Compile a C++ source with a plain C interface once per instruction set, keep the library, call it from Python.

No header of torch or Python takes part, so a build takes a second or two, and one wheel serves every version of both.
`Kernels` is what an operator's module holds: the source beside it, its C signatures, and one warning when there is no
way to build it.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from gnomon.core.errors import NotRunnable
from gnomon.core.paths import home

# -ffast-math would break the rounding trick of a vector exp (seen: errors of 0.4)
_FLAGS = ("-O3", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")
ISAS: Mapping[str, tuple[str, ...]] = {
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "baseline": (),  # what every machine of this architecture can: SSE2, or NEON
}


class NativeUnavailable(RuntimeError):
    """No native kernel can be had here; the message says why and what to do."""


def isas() -> tuple[str, ...]:
    """The instruction sets that this machine runs, the best first. ATEN_CPU_CAPABILITY lowers it, as for torch."""
    capability = torch.backends.cpu.get_cpu_capability()
    order = tuple(ISAS)
    return order[{"AVX512": 0, "AVX2": 1}.get(capability.split("_")[0], 2) :]


def compiler() -> str | None:
    """The C++ compiler: CXX where it is set, else the first of c++, g++ and clang++ on the PATH."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((path for name in names if (path := shutil.which(name))), None)


def build(source: Path, isa: str | None = None) -> Path:
    """The shared library made of `source` and of the headers (*.h) beside it and one folder up.

    isa: one of ISAS, None for the best here. Raises NativeUnavailable and nothing else.
    """
    isa = isa or isas()[0]
    cxx = compiler()
    if cxx is None:
        raise NativeUnavailable("no C++ compiler was found; install g++ or set CXX")
    try:
        flags = (*_FLAGS, *ISAS[isa])
        headers = [path for folder in (source.parent, source.parent.parent) for path in sorted(folder.glob("*.h"))]
        texts = [path.read_text() for path in (source, *headers)]
        key = hashlib.sha256("\0".join([*texts, cxx, *flags]).encode()).hexdigest()[:16]
        target = home() / "kernels" / f"{source.parent.name}-{source.stem}-{isa}-{key}.so"
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            built = f"{scratch}/lib.so"
            done = subprocess.run(
                [cxx, *flags, str(source), "-o", built], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                raise NativeUnavailable(f"{cxx} failed on {source.name} for {isa}:\n{done.stderr[-2000:]}")
            os.replace(built, target)  # atomic: two processes may build at once
    except (OSError, subprocess.SubprocessError, NotRunnable) as error:
        raise NativeUnavailable(f"cannot build {source.name} for {isa}: {error}") from error
    return target


class Kernels:
    """The C functions of one source.

    name: what runs slower without them, for the warning. source: the .cpp. signatures: function -> its C argument
    types; every function returns nothing.
    """

    def __init__(self, name: str, source: Path, signatures: Mapping[str, Sequence[Any]]) -> None:
        self.name, self.source, self._signatures = name, source, signatures
        self._lock = threading.Lock()
        self._warned = False

    @functools.lru_cache  # noqa: B019 (kernels live as long as the process)
    def library(self, isa: str) -> ctypes.CDLL:
        """The loaded library of one instruction set. Raises NativeUnavailable."""
        try:
            library = ctypes.CDLL(str(build(self.source, isa)))
        except OSError as error:
            raise NativeUnavailable(f"cannot load {self.source.name} for {isa}: {error}") from error
        for function, arguments in self._signatures.items():
            entry = getattr(library, function)
            entry.argtypes, entry.restype = list(arguments), None
        return library

    @functools.lru_cache  # noqa: B019
    def why_not(self, isa: str | None = None) -> str | None:
        """Why the kernels cannot run here; None when they can. A broken compiler is asked once."""
        if isa is not None and isa not in isas():
            return f"this processor (or ATEN_CPU_CAPABILITY) has no {isa}"
        try:
            self.library(isa or isas()[0])
        except NativeUnavailable as error:
            return str(error)
        return None

    def get(self, isa: str | None = None) -> ctypes.CDLL | None:
        """The library, or None after one warning that says why the slower reference runs."""
        reason = self.why_not(isa)
        if reason is None:
            return self.library(isa or isas()[0])
        with self._lock:
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.name} runs its slower reference: {reason}", RuntimeWarning, stacklevel=3)
        return None


def parallel(work: Callable[[Any], object], items: int) -> None:
    """Call `work(counter)` once on each of torch's threads, at most `items` of them, and wait for all.

    counter: a pointer to an int64 that starts at 0; C code takes its next item with __atomic_fetch_add(counter, 1,
    __ATOMIC_RELAXED) until `items` are taken. ctypes gives the interpreter's lock away while C runs.
    """
    counter = ctypes.byref(ctypes.c_int64(0))
    threads = min(torch.get_num_threads(), items)
    if threads <= 1:
        work(counter)
        return
    others = [_pool(os.getpid()).submit(work, counter) for _ in range(threads - 1)]
    try:
        work(counter)
    finally:
        for other in others:
            other.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="gnomon-kernel")
