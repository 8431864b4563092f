"""Trees of /proc and /sys as Linux writes them on four machines, shortened to what `host` reads."""

from pathlib import Path

Tree = dict[str, str]


def grow(root: Path, *trees: Tree) -> Path:
    for tree in trees:
        for name, text in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def _caches(*caches: tuple[int, str, str, str]) -> Tree:
    base = "sys/devices/system/cpu/cpu0/cache"
    return {
        f"{base}/index{index}/{name}": f"{value}\n"
        for index, cache in enumerate(caches)
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), cache, strict=True)
    }


# a virtual machine on a Xeon of the Cascade Lake generation, recorded
INTEL: Tree = {
    "proc/cpuinfo": "\n".join(
        f"""processor\t: {cpu}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
cpu MHz\t\t: 2499.998
cache size\t: 36608 KB
physical id\t: 0
siblings\t: 2
core id\t\t: {cpu}
cpu cores\t: 2
flags\t\t: fpu vme sse sse2 ht syscall nx lm constant_tsc ssse3 fma cx16 sse4_1 sse4_2 avx f16c hypervisor avx2 \
avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni
power management:
"""
        for cpu in range(2)
    ),
    "proc/self/status": "Name:\tpython\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n",
    "proc/self/cgroup": "4:memory:/jobs/9a1c\n2:cpuacct:/\n1:cpu:/\n0::/\n",
    "proc/meminfo": "MemTotal:       24684096 kB\nMemFree:        23188688 kB\n",
    "proc/sys/kernel/osrelease": "6.18.44\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "proc/sys/kernel/perf_event_paranoid": "2\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    **_caches((1, "Data", "32K", "0"), (1, "Instruction", "32K", "0"), (2, "Unified", "1024K", "0"),
              (3, "Unified", "36608K", "0-1")),
}  # fmt: skip

# two sockets of four cores with two threads each, bare metal
AMD: Tree = {
    "proc/cpuinfo": "\n".join(
        f"""processor\t: {cpu}
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9654 96-Core Processor
cpu MHz\t\t: 1500.000
physical id\t: {cpu // 4 % 2}
core id\t\t: {cpu % 4}
flags\t\t: fpu sse sse2 ht lm ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_vnni
"""
        for cpu in range(16)
    ),
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3,8-11\n",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice\n",
    "sys/fs/cgroup/user.slice/user-1000.slice/cpu.max": "max 100000\n",
    "proc/meminfo": "MemTotal:       1056234496 kB\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3707812\n",
    "sys/class/dmi/id/sys_vendor": "Supermicro\n",
    "sys/class/dmi/id/product_name": "AS -2025HS-TNR\n",
    **_caches((1, "Data", "32K", "0,8"), (2, "Unified", "1M", "0,8"), (3, "Unified", "32M", "0-3,8-11")),
}

# an ARM server in a cloud: no model name, no physical id, no clock
ARM: Tree = {
    "proc/cpuinfo": "\n".join(
        f"""processor\t: {cpu}
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes atomics fphp asimdhp asimdrdm asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""
        for cpu in range(4)
    )
    + "\nHardware\t: a board\n",
    "proc/meminfo": "MemTotal:        7935812 kB\n",
    "sys/class/dmi/id/sys_vendor": "Amazon EC2\n",
    "sys/class/dmi/id/product_name": "c7g.xlarge\n",
    **_caches((1, "Data", "64K", "0"), (2, "Unified", "1024K", "0"), (3, "Unified", "32768K", "0-3")),
}

# laid over a machine's tree: a container with 1.5 CPUs and 2 GiB, seen from inside (control groups version 2)
DOCKER: Tree = {
    ".dockerenv": "",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/memory.max": "2147483648\n",
}

# the same limits written by version 1, where the path names the host's folder that the container does not see
DOCKER_V1: Tree = {
    ".dockerenv": "",
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/0af3\n4:memory:/docker/0af3\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
}
