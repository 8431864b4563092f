"""Does this machine have what a manifest asks for? Software against installed distributions, hardware against a host.

A host is a mapping with the keys of `facts`; a fact that is missing or None is not known, and a predicate on it fails.
"""

import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gnomon.core.errors import did_you_mean
from gnomon.core.paths import home
from gnomon.spec.manifest import Accelerator, HardwareSpec, SoftwareSpec

if TYPE_CHECKING:
    from gnomon.devices.host import Host

GIB = 2**30

# Variables that tune numbers and threads. Any other could load a library or a module into the process (LD_PRELOAD,
# PYTHONPATH, CUDA_INJECTION64_PATH, NCCL_NET_PLUGIN), which would be code that no one agreed to.
ENV = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES", "DNNL_MAX_CPU_ISA", "GOMP_CPU_AFFINITY", "HF_HUB_OFFLINE", "HIP_VISIBLE_DEVICES",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MKL_CBWR",
    "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_DYNAMIC", "OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND",
    "OMP_SCHEDULE", "OMP_WAIT_POLICY", "ONEDNN_MAX_CPU_ISA", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "OPENBLAS_NUM_THREADS",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_MAX_AUTOTUNE", "TRANSFORMERS_OFFLINE",
)  # fmt: skip


def facts(host: "Host") -> dict[str, Any]:
    """What predicates look at: arch, cores, isa, memory_bytes, disk_bytes (free), accelerators."""
    return {
        "arch": host.architecture,
        "cores": host.usable_cores,
        "isa": host.isa,
        "memory_bytes": host.usable_memory_bytes,
        "disk_bytes": shutil.disk_usage(home()).free,
        "accelerators": [
            {"vendor": "NVIDIA", "name": g.name, "memory_bytes": g.memory_bytes, "arch": g.arch} for g in host.gpus
        ],
    }


def malformed(spec: SoftwareSpec, trust: bool) -> list[tuple[str, str]]:
    """(key, what is wrong) of a software part: ranges and requirements that cannot be read, variables not allowed."""
    wrong = []
    if spec.python is not None:
        try:
            SpecifierSet(spec.python)
        except InvalidSpecifier:
            wrong.append(("python", f"wanted a version range such as '>=3.11', got {spec.python!r}"))
    for index, text in enumerate(spec.packages):
        try:
            if Requirement(text).url is not None:
                wrong.append((f"packages[{index}]", f"wanted a requirement without a URL, got {text!r}"))
        except InvalidRequirement:
            wrong.append((f"packages[{index}]", f"wanted a requirement such as 'torch>=2.9', got {text!r}"))
    for name in spec.env:
        if name not in ENV and not trust:
            hint = did_you_mean(name, ENV)
            wrong.append((f"env.{name}", f"this variable is not on the list of harmless ones; it needs --trust.{hint}"))
    return wrong


def missing_software(spec: SoftwareSpec) -> list[tuple[str, str]]:
    """(key, what is missing and how to get it) of a software part that is well formed."""
    missing = []
    if spec.python is not None and not SpecifierSet(spec.python).contains(platform.python_version(), prereleases=True):
        missing.append(("python", f"wanted Python {spec.python}, this is {platform.python_version()}"))
    for index, text in enumerate(spec.packages):
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        have = installed(wanted.name)
        if have is None:
            missing.append((f"packages[{index}]", f"{wanted.name} is not installed: pip install '{text}'"))
        elif not wanted.specifier.contains(have, prereleases=True):
            missing.append((f"packages[{index}]", f"wanted {text}, installed is {have}: pip install '{text}'"))
    return missing


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def missing_hardware(spec: HardwareSpec, host: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what was wanted and what this machine has) of every predicate that does not hold."""
    missing = []
    arch, isa = host.get("arch"), host.get("isa") or ()
    if spec.cpu.arch and arch not in spec.cpu.arch:
        missing.append(("cpu.arch", f"wanted {' or '.join(spec.cpu.arch)}, this machine is {_known(arch)}"))
    if spec.cpu.min_cores is not None and (host.get("cores") or 0) < spec.cpu.min_cores:
        missing.append(
            ("cpu.min_cores", f"wanted {spec.cpu.min_cores} cores, usable here: {_known(host.get('cores'))}")
        )
    lacking = [name for name in spec.cpu.isa if name not in isa]
    if lacking:
        missing.append(
            ("cpu.isa", f"wanted {', '.join(lacking)}, this CPU has {', '.join(isa) or 'none that we know'}")
        )
    for key, wanted_gib, have in (
        ("memory_gib", spec.memory_gib, host.get("memory_bytes")),
        ("disk_gib", spec.disk_gib, host.get("disk_bytes")),
    ):
        if wanted_gib is not None and (have is None or have < wanted_gib * GIB):
            missing.append((key, f"wanted {wanted_gib:g} GiB, this machine has {_gib(have)}"))
    devices = host.get("accelerators") or ()
    for index, wanted in enumerate(spec.accelerators):
        fitting = [d for d in devices if _fits(wanted, d)]
        if len(fitting) < wanted.count:
            missing.append((f"accelerators[{index}]", f"wanted {_wish(wanted)}, this machine has {_devices(devices)}"))
    return missing


def _fits(wanted: Accelerator, device: Mapping[str, Any]) -> bool:
    if wanted.vendor is not None and str(device.get("vendor") or "").lower() != wanted.vendor.lower():
        return False
    if wanted.memory_gib is not None and (device.get("memory_bytes") or 0) < wanted.memory_gib * GIB:
        return False
    return wanted.arch_min is None or _at_least(str(device.get("arch") or ""), wanted.arch_min)


def _at_least(arch: str, least: str) -> bool:
    """Compare 'sm_90' with 'sm_80', 'gfx942' with 'gfx90a'; architectures of different makers do not compare."""
    found, wanted = re.fullmatch("(sm_|gfx)([0-9a-f]+)", arch), re.fullmatch("(sm_|gfx)([0-9a-f]+)", least)
    if found is None or wanted is None or found[1] != wanted[1]:
        return False
    return int(found[2], 16) >= int(wanted[2], 16)  # decimal numbers of NVIDIA keep their order


def _wish(wanted: Accelerator) -> str:
    memory = f"{wanted.memory_gib:g} GiB" if wanted.memory_gib is not None else None
    arch = f"{wanted.arch_min} or newer" if wanted.arch_min else None
    rest = ", ".join(word for word in (wanted.vendor, arch, memory) if word)
    return f"{wanted.count} accelerator{'s' if wanted.count > 1 else ''}{f' ({rest})' if rest else ''}"


def _devices(devices: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{d.get('name', 'a device')} {_gib(d.get('memory_bytes'))}" for d in devices) or "none"


def _known(value: Any) -> str:
    return "not known" if value is None else str(value)


def _gib(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / GIB:.3g} GiB"
