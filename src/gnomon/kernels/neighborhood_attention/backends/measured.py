"""Times of backends, measured here by `profile`, and kept between processes for `choose`.

One JSON file in `gnomon.core.paths.home()`: environment -> case -> backend -> seconds. An environment names device,
threads and versions, so that a new torch or another machine never reads what was measured before.
"""

import functools
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from gnomon._version import __version__
from gnomon.core.paths import home
from gnomon.kernels.neighborhood_attention.backends.case import Case

_FILE = "neighborhood-attention-measured.json"
_VERSION = 1
Times = Mapping[str, float]  # backend -> seconds of one call


def environment(device: str) -> str:
    """Device, threads and versions that times depend on."""
    if device == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"{_processor()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return ", ".join([name, f"torch {torch.__version__}", f"gnomon {__version__}", *_optional_versions()])


def case_key(case: Case) -> str:
    """One line that tells cases apart: '32x32 w7x7 s1x1 d1x1 c0x0 B4 H4/4 D32/32 float32 cpu'."""
    p = case.problem
    axes = [(p.space, ""), (p.kernel_size, "w"), (p.stride, "s"), (p.dilation, "d"), (p.is_causal, "c")]
    parts = [letter + "x".join(str(int(value)) for value in values) for values, letter in axes]
    parts += [f"B{case.batch}", f"H{case.heads}/{case.heads_kv}", f"D{case.head_dim}/{case.head_dim_v}"]
    parts += [str(case.dtype).removeprefix("torch."), case.device]
    asked = {"grad": case.needs_grad, "lse": case.needs_lse, "rpb": case.has_bias}
    return " ".join([*parts, *(name for name, wanted in asked.items() if wanted)])


def times(case: Case) -> Times:
    """What `keep` was last told about exactly this case here; empty when it was never measured."""
    return _load(str(home() / _FILE)).get(environment(case.device), {}).get(case_key(case), {})


def keep(case: Case, seconds: Times) -> Path:
    """Remember the times of a case; returns the file. Raises OSError when it cannot be written."""
    path = home() / _FILE
    forget()
    known = {env: dict(cases) for env, cases in _load(str(path)).items()}
    known.setdefault(environment(case.device), {})[case_key(case)] = dict(seconds)
    document = {"version": _VERSION, "environments": known}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    os.replace(file.name, path)  # atomic: readers see the old file or the new one
    forget()
    return path


def forget() -> None:
    """Read the file again at the next question: another process may have measured."""
    _load.cache_clear()


@functools.lru_cache(maxsize=2)
def _load(path: str) -> dict[str, dict[str, dict[str, float]]]:
    try:
        document = json.loads(Path(path).read_text("utf-8"))
        if document["version"] != _VERSION:
            return {}
        return {
            str(env): {str(case): {str(b): float(s) for b, s in row.items()} for case, row in cases.items()}
            for env, cases in document["environments"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(
            f"{path} cannot be read ({error!r}), so backends are chosen by estimates; delete it and profile again",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@functools.cache
def _optional_versions() -> tuple[str, ...]:
    found = []
    for package in ("triton", "natten"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
