"""The facts of this machine: what the kernel, the container and the driver say, without torch and without measuring.

Everything on Linux is read below a root folder, so that a recorded tree of another machine reads the same way.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gnomon.core.records import record

Run = Callable[[Sequence[str]], str | None]

# instruction sets that decide which kernels run: as the kernel calls them -> as we do
_ISA = {
    "sse4_2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512f",
    "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16", "avx_vnni": "avx_vnni", "amx_tile": "amx_tile", "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16",
    "asimd": "neon", "neon": "neon", "asimdhp": "neon_fp16", "asimddp": "neon_dotprod", "i8mm": "neon_i8mm",
    "bf16": "neon_bf16", "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip

# /proc/cpuinfo of ARM names no model: (implementer, part) as in the manuals of the cores
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd08"): "Cortex-A72", ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1", ("0x41", "0xd40"): "Neoverse-V1", ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2", ("0xc0", "0xac3"): "Ampere-1",
}  # fmt: skip
_ARM_VENDORS = {
    "0x41": "ARM",
    "0x42": "Broadcom",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache that the first CPU uses. kind: 'data', 'instruction' or 'unified'. shared_by: logical CPUs."""

    level: int
    kind: str
    size_bytes: int
    shared_by: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver reports it. memory_bytes: in all. clock_hz: highest of the multiprocessors. arch: 'sm_90'."""

    name: str
    memory_bytes: int
    driver: str
    clock_hz: float | None
    power_limit_w: float | None
    arch: str | None = None


@record("host", 1)
@dataclass(frozen=True, slots=True)
class Host:
    """One machine as this process sees it. What the system does not tell is None (or empty), never guessed.

    cpus: logical CPUs of the machine. usable_cpus: those that the affinity mask allows. cpu_quota: CPUs' worth of time
    that the control group grants, None for no limit. memory_bytes: of the machine; memory_limit_bytes: of the control
    group. frequency_hz: the highest that the kernel knows, else the present one. hypervisor: '' on bare metal.
    """

    cpu: str
    vendor: str
    architecture: str
    sockets: int | None
    cores: int | None
    cpus: int
    usable_cpus: int
    cpu_quota: float | None
    frequency_hz: float | None
    caches: tuple[Cache, ...]
    isa: tuple[str, ...]
    memory_bytes: int | None
    memory_limit_bytes: int | None
    system: str
    kernel: str
    hypervisor: str
    container: str
    gpus: tuple[Gpu, ...]

    @property
    def usable_cores(self) -> int:
        """Threads that can run at the same time: affinity and control group together, at least 1."""
        return max(1, min(self.usable_cpus, int(self.cpu_quota) if self.cpu_quota is not None else self.usable_cpus))

    @property
    def usable_memory_bytes(self) -> int | None:
        """Memory that the process can get: the machine's or the control group's, whichever is less."""
        known = [size for size in (self.memory_bytes, self.memory_limit_bytes) if size is not None]
        return min(known) if known else None

    @property
    def last_cache_bytes(self) -> int | None:
        """Size of the largest cache, None when the system does not tell."""
        return max((cache.size_bytes for cache in self.caches if cache.kind != "instruction"), default=None)


def run_tool(command: Sequence[str]) -> str | None:
    """Standard output of a command, None when it is missing, fails or takes more than 10 seconds."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def host(root: Path = Path("/"), system: str | None = None, run: Run = run_tool) -> Host:
    """This machine. root: where /proc and /sys are looked for. system: as `platform.system()`. run: starts a tool."""
    if (system or platform.system()) == "Darwin":
        return _mac(run)
    return _linux(root, run)


def _linux(root: Path, run: Run) -> Host:
    cpuinfo = _cpuinfo(root)
    first = cpuinfo[0] if cpuinfo else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    cpu, vendor = _names(first)
    status = _table(_text(root, "proc/self/status"))
    allowed = _cpu_list(status.get("Cpus_allowed_list", ""))
    sockets = {block["physical id"] for block in cpuinfo if "physical id" in block}
    cores = {
        (block["physical id"], block["core id"]) for block in cpuinfo if {"physical id", "core id"} <= block.keys()
    }
    cpus = len(cpuinfo) or os.cpu_count() or 1
    memory = re.match(r"(\d+) kB", _table(_text(root, "proc/meminfo")).get("MemTotal", ""))
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _text(root, "etc/os-release"), re.MULTILINE))
    return Host(
        cpu=cpu,
        vendor=vendor,
        architecture=_architecture(flags),
        sockets=len(sockets) or None,
        cores=len(cores) or None,
        cpus=cpus,
        usable_cpus=len(allowed) or cpus,
        cpu_quota=_cpu_quota(root),
        frequency_hz=_frequency(root, first),
        caches=_caches(root),
        isa=tuple(dict.fromkeys(ours for theirs, ours in _ISA.items() if theirs in flags)),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        memory_limit_bytes=_memory_limit(root),
        system=release.get("PRETTY_NAME", "Linux"),
        kernel=_text(root, "proc/sys/kernel/osrelease") or platform.release(),
        hypervisor=_hypervisor(root, flags),
        container=_container(root),
        gpus=_gpus(run),
    )


def _text(root: Path, path: str) -> str:
    """A small file below the root without its last newline; '' when it is missing or may not be read."""
    try:
        return (root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip("\n\0 ")
    except OSError:
        return ""


def _table(text: str) -> dict[str, str]:
    """'key : value' lines; the first of equal keys wins."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            table.setdefault(key.strip(), value.strip())
    return table


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """One table per logical CPU. What follows the last of them on ARM ('Hardware') holds no CPU and is left out."""
    blocks = [_table(block) for block in re.split(r"\n\s*\n", _text(root, "proc/cpuinfo"))]
    return [block for block in blocks if "processor" in block]


def _names(first: dict[str, str]) -> tuple[str, str]:
    vendors = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
    implementer, part = first.get("CPU implementer", ""), first.get("CPU part", "")
    vendor = first.get("vendor_id", "")
    vendor = vendors.get(vendor, vendor) or _ARM_VENDORS.get(implementer, implementer) or "unknown"
    model = first.get("model name") or _ARM_CORES.get((implementer, part))
    if model is None:
        model = f"{vendor} part {part}" if part else platform.processor() or platform.machine()
    return model, vendor


def _architecture(flags: set[str]) -> str:
    """From the flags where they tell, so that a recorded tree is read as the machine it came from."""
    if "lm" in flags:  # long mode
        return "x86_64"
    return "aarch64" if "asimd" in flags else platform.machine()


def _cpu_list(text: str) -> set[int]:
    """'0-3,8' -> {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", text):
        cpus.update(range(int(low), int(high or low) + 1))
    return cpus


def _groups(root: Path) -> list[tuple[str, str]]:
    """(controllers, path) of this process's control groups; controllers is '' for version 2."""
    lines = [line.split(":", 2) for line in _text(root, "proc/self/cgroup").splitlines()]
    return [(line[1], line[2]) for line in lines if len(line) == 3]


def _limit_files(root: Path, controller: str, name_v2: str, name_v1: str) -> list[tuple[Path, bool]]:
    """Files that may limit `controller`, as (file, is of version 2): the process's group and all groups above it.

    Inside a container the path in /proc/self/cgroup is often the host's; then only the mount's top exists here.
    """
    found: list[tuple[Path, bool]] = []
    for controllers, path in _groups(root):
        is_v2 = controllers == ""
        if not is_v2 and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" if is_v2 else root / "sys/fs/cgroup" / controllers
        if not is_v2 and not base.exists():  # 'cpu,cpuacct' is also mounted as 'cpu'
            base = root / "sys/fs/cgroup" / controller
        folder = PurePosixPath(path.lstrip("/"))
        if ".." in folder.parts:
            folder = PurePosixPath(".")
        for level in (folder, *folder.parents):
            found.append((base / level / (name_v2 if is_v2 else name_v1), is_v2))
    return [(file, is_v2) for file, is_v2 in dict.fromkeys(found) if file.is_file()]


def _cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time: 'max 100000' or '150000 100000' (version 2), two files (version 1; -1 is no limit)."""
    quotas = []
    for file, is_v2 in _limit_files(root, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        words = _text(file.parent, file.name).split()
        if not is_v2:
            words += _text(file.parent, "cpu.cfs_period_us").split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas) if quotas else None


def _memory_limit(root: Path) -> int | None:
    """Version 1 writes a number near 2^63 for 'no limit'."""
    limits = []
    for file, _ in _limit_files(root, "memory", "memory.max", "memory.limit_in_bytes"):
        text = _text(file.parent, file.name)
        if text.isdecimal() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits) if limits else None


def _caches(root: Path) -> tuple[Cache, ...]:
    caches = []
    base = root / "sys/devices/system/cpu/cpu0/cache"
    for index in sorted(base.glob("index*")):
        size = re.fullmatch(r"(\d+)([KMG]?)", _text(index, "size"))
        level = _text(index, "level")
        if size and level.isdecimal():
            count = int(size[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[size[2]]
            shared = len(_cpu_list(_text(index, "shared_cpu_list")))
            caches.append(Cache(int(level), _text(index, "type").lower(), count, shared or None))
    return tuple(caches)


def _frequency(root: Path, first: dict[str, str]) -> float | None:
    highest = _text(root, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if highest.isdecimal():
        return int(highest) * 1e3
    now = first.get("cpu MHz", "")
    return float(now) * 1e6 if re.fullmatch(r"\d+(\.\d+)?", now) else None


def _hypervisor(root: Path, flags: set[str]) -> str:
    maker = " ".join(filter(None, (_text(root, f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))))
    known = {"QEMU": "KVM", "KVM": "KVM", "Amazon EC2": "Nitro", "Google Compute": "Google", "VMware": "VMware",
             "Microsoft Corporation Virtual": "Hyper-V", "VirtualBox": "VirtualBox", "Xen": "Xen"}  # fmt: skip
    for text, name in known.items():
        if text in maker or text.lower() == _text(root, "sys/hypervisor/type"):
            is_metal = name == "Nitro" and ".metal" in maker
            return "" if is_metal else name
    return "of an unknown kind" if "hypervisor" in flags else ""


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    paths = " ".join(path for _, path in _groups(root))
    return next(
        (name for text, name in {"kubepods": "Kubernetes", "docker": "Docker", "lxc": "LXC"}.items() if text in paths),
        "",
    )


def _gpus(run: Run) -> tuple[Gpu, ...]:
    """NVIDIA GPUs as NVML knows them, asked through nvidia-smi, which comes with every driver."""
    query = "name,memory.total,driver_version,clocks.max.sm,power.limit,compute_cap"
    text = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"])
    rows = [[word.strip() for word in line.split(",")] for line in (text or "").splitlines()]
    return tuple(
        Gpu(name, int(mib) * 2**20, driver, _scaled(clock, 1e6), _scaled(power, 1.0), _arch(capability))
        for name, mib, driver, clock, power, capability in (r for r in rows if len(r) == 6 and r[1].isdecimal())
    )


def _arch(capability: str) -> str | None:
    """'9.0' -> 'sm_90'; a driver that does not know the field answers something else."""
    return "sm_" + capability.replace(".", "") if re.fullmatch(r"\d+\.\d", capability) else None


def _scaled(text: str, factor: float) -> float | None:
    """A number of nvidia-smi in base units; '[N/A]' is not known."""
    return float(text) * factor if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _mac(run: Run) -> Host:
    """macOS answers `sysctl`; it has neither affinity masks nor control groups."""
    facts = _table(run(["sysctl", "-a"]) or "")

    def number(key: str) -> int | None:
        return int(facts[key]) if facts.get(key, "").isdecimal() else None

    brand = facts.get("machdep.cpu.brand_string", "") or platform.processor() or "unknown"
    is_arm = number("hw.optional.arm64") == 1
    intel = {flag.lower().replace(".", "_") for flag in facts.get("machdep.cpu.features", "").split()}
    intel |= {flag.lower() for flag in facts.get("machdep.cpu.leaf7_features", "").split()}
    arm = {"hw.optional.neon": "neon", "hw.optional.arm.FEAT_DotProd": "neon_dotprod",
           "hw.optional.arm.FEAT_BF16": "neon_bf16", "hw.optional.arm.FEAT_I8MM": "neon_i8mm",
           "hw.optional.arm.FEAT_SME": "sme"}  # fmt: skip
    x86 = {"sse4_2": "sse4_2", "avx1_0": "avx", "avx2": "avx2", "fma": "fma", "avx512f": "avx512f"}
    if is_arm:
        isa = [name for key, name in arm.items() if number(key) == 1]
    else:
        isa = [name for flag, name in x86.items() if flag in intel]
    sizes = {(1, "data"): "hw.l1dcachesize", (2, "unified"): "hw.l2cachesize", (3, "unified"): "hw.l3cachesize"}
    caches = [Cache(level, kind, number(key) or 0, None) for (level, kind), key in sizes.items() if number(key)]
    cpus = number("hw.logicalcpu") or os.cpu_count() or 1
    frequency = number("hw.cpufrequency_max")
    return Host(
        cpu=brand,
        vendor="Apple" if brand.startswith("Apple") else brand.split("(")[0].split()[0],
        architecture="aarch64" if is_arm else "x86_64",
        sockets=number("hw.packages"),
        cores=number("hw.physicalcpu"),
        cpus=cpus,
        usable_cpus=cpus,
        cpu_quota=None,
        frequency_hz=float(frequency) if frequency else None,
        caches=tuple(caches),
        isa=tuple(isa),
        memory_bytes=number("hw.memsize"),
        memory_limit_bytes=None,
        system=f"macOS {facts.get('kern.osproductversion', '')}".strip(),
        kernel=facts.get("kern.osrelease", ""),
        hypervisor="of an unknown kind" if number("kern.hv_vmm_present") == 1 else "",
        container="",
        gpus=(),
    )
