import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.records import from_json, to_json
from gnomon.devices.host import Cache, Gpu, Host, _cpu_list, host, run_tool

from .trees import AMD, ARM, DOCKER, DOCKER_V1, INTEL, grow


def no_tool(command):
    return None


def read(root, *trees, run=no_tool) -> Host:
    return host(grow(root, *trees), system="Linux", run=run)


def test_a_virtual_machine_on_intel(tmp_path):
    machine = read(tmp_path, INTEL)
    assert machine.cpu == "Intel(R) Xeon(R) Processor @ 2.50GHz"
    assert (machine.vendor, machine.architecture) == ("Intel", "x86_64")
    assert (machine.sockets, machine.cores, machine.cpus, machine.usable_cores) == (1, 2, 2, 2)
    assert machine.frequency_hz == 2499.998e6
    assert machine.caches[0] == Cache(1, "data", 32 * 2**10, 1)
    assert machine.last_cache_bytes == 36608 * 2**10
    assert {"avx2", "avx512f", "avx512_vnni"} <= set(machine.isa)
    assert not {"avx512_bf16", "amx_bf16", "neon"} & set(machine.isa)
    assert machine.memory_bytes == 24684096 * 1024
    assert machine.usable_memory_bytes == machine.memory_bytes
    assert machine.cpu_quota is None
    assert machine.memory_limit_bytes is None
    assert machine.hypervisor == "of an unknown kind"
    assert machine.container == ""
    assert (machine.system, machine.kernel) == ("Debian GNU/Linux 12 (bookworm)", "6.18.44")


def test_two_sockets_of_amd_with_threads_and_an_affinity_mask(tmp_path):
    machine = read(tmp_path, AMD)
    assert machine.vendor == "AMD"
    assert (machine.sockets, machine.cores, machine.cpus, machine.usable_cpus) == (2, 8, 16, 8)
    assert machine.frequency_hz == 3707812e3  # the highest, not the present 1500 MHz
    assert machine.caches[-1] == Cache(3, "unified", 32 * 2**20, 8)
    assert "avx512_bf16" in machine.isa
    assert machine.hypervisor == ""
    assert machine.cpu_quota is None  # 'max'


def test_an_arm_server_is_named_by_its_core(tmp_path):
    machine = read(tmp_path, ARM)
    assert (machine.cpu, machine.vendor, machine.architecture) == ("Neoverse-V1", "ARM", "aarch64")
    assert machine.cpus == 4
    assert machine.usable_cpus == 4  # no affinity told: all
    assert {"neon", "neon_dotprod", "neon_bf16", "neon_i8mm", "sve"} <= set(machine.isa)
    assert machine.sockets is None
    assert machine.frequency_hz is None
    assert machine.hypervisor == "Nitro"


# the same mount under the name of one of its controllers
DOCKER_V1_CPU = {name.replace("cpu,cpuacct/", "cpu/"): text for name, text in DOCKER_V1.items()}


@pytest.mark.parametrize("limits", [DOCKER, DOCKER_V1, DOCKER_V1_CPU])
def test_a_container_gets_what_its_control_group_grants(tmp_path, limits):
    machine = read(tmp_path, AMD, limits)
    assert machine.cpu_quota == 1.5
    assert machine.usable_cpus == 8
    assert machine.usable_cores == 1
    assert machine.memory_limit_bytes == machine.usable_memory_bytes == 2 * 2**30
    assert machine.container == "Docker"


def test_the_tightest_of_nested_limits_counts(tmp_path):
    nested = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/inner/cpu.max": "800000 100000\n",
        "sys/fs/cgroup/outer/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/memory.max": "1073741824\n",
    }
    machine = read(tmp_path, AMD, nested)
    assert machine.cpu_quota == 3
    assert machine.memory_limit_bytes == 2**30


def test_a_path_that_leaves_the_mount_reads_its_top_only(tmp_path):
    outside = {
        "proc/self/cgroup": "0::/../../../etc\n",
        "sys/fs/cgroup/cpu.max": "200000 100000\n",
        "etc/cpu.max": "1 1\n",
    }
    assert read(tmp_path, AMD, outside).cpu_quota == 2


@pytest.mark.parametrize("text", ["", "max", "0 0", "x y", "-1 100000", "100000"])
def test_a_limit_that_cannot_be_read_is_no_limit(tmp_path, text):
    assert read(tmp_path, AMD, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": text}).cpu_quota is None


def test_an_empty_tree_gives_less_and_no_error(tmp_path):
    machine = read(tmp_path)
    assert machine.cpus >= 1
    assert machine.usable_cores >= 1
    assert machine.memory_bytes is None
    assert machine.usable_memory_bytes is None
    assert machine.last_cache_bytes is None
    assert machine.caches == ()
    assert machine.isa == ()


@pytest.mark.parametrize("tree", [INTEL, AMD, ARM, {}])
def test_a_host_survives_json(tmp_path, tree):
    machine = read(tmp_path, tree)
    assert from_json(json.loads(json.dumps(to_json(machine))), Host) == machine


def test_gpus_come_from_nvidia_smi(tmp_path):
    def smi(command):
        assert command[0] == "nvidia-smi"
        h100 = "NVIDIA H100 80GB HBM3, 81559, 550.54.15, 1980, 700.00, 9.0"
        return f"{h100}\nTesla T4, 15360, 550.54.15, [N/A], [N/A], [N/A]\n"

    assert read(tmp_path, INTEL, run=smi).gpus == (
        Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, "550.54.15", 1980e6, 700.0, "sm_90"),
        Gpu("Tesla T4", 15360 * 2**20, "550.54.15", None, None, None),
    )


@pytest.mark.parametrize("text", ["", "No devices were found\n", "a, b, c\n", "T4, none, 1, 2, 3, 7.5\n"])
def test_an_answer_of_nvidia_smi_without_gpus_gives_none(tmp_path, text):
    assert read(tmp_path, INTEL, run=lambda command: text).gpus == ()


MAC = """machdep.cpu.brand_string: Apple M2 Pro
hw.optional.arm64: 1
hw.optional.neon: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
hw.physicalcpu: 10
hw.logicalcpu: 10
hw.packages: 1
hw.l1dcachesize: 65536
hw.l2cachesize: 4194304
hw.memsize: 17179869184
kern.osrelease: 23.5.0
kern.osproductversion: 14.5
kern.hv_vmm_present: 0
"""


def test_macos_is_read_from_sysctl():
    machine = host(system="Darwin", run=lambda command: MAC)
    assert (machine.cpu, machine.vendor, machine.architecture) == ("Apple M2 Pro", "Apple", "aarch64")
    assert (machine.cores, machine.usable_cores, machine.memory_bytes) == (10, 10, 2**34)
    assert machine.isa == ("neon", "neon_bf16")
    assert machine.last_cache_bytes == 4 * 2**20
    assert machine.system == "macOS 14.5"


def test_macos_on_intel_names_the_same_instruction_sets():
    text = "machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz\n"
    text += "machdep.cpu.features: FPU SSE4.2 AVX1.0 FMA\nmachdep.cpu.leaf7_features: AVX2 BMI2\n"
    machine = host(system="Darwin", run=lambda command: text)
    assert machine.vendor == "Intel"
    assert machine.isa == ("sse4_2", "avx", "avx2", "fma")


def test_macos_without_an_answer_gives_less_and_no_error():
    assert host(system="Darwin", run=no_tool).cpus >= 1


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_cpus_reads_back(cpus):
    runs, text = sorted(cpus), []
    while runs:
        end = next((i for i in range(len(runs) - 1) if runs[i + 1] != runs[i] + 1), len(runs) - 1)
        text.append(f"{runs[0]}-{runs[end]}" if end else str(runs[0]))
        runs = runs[end + 1 :]
    assert _cpu_list(",".join(text)) == cpus


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_this_machine_agrees_with_the_operating_system():
    machine = host()
    assert machine.usable_cpus == len(os.sched_getaffinity(0))
    assert machine.memory_bytes == pytest.approx(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), rel=0.01)
    assert machine.kernel == os.uname().release


def test_a_tool_that_is_missing_or_fails_answers_nothing():
    assert run_tool(["no-such-tool-anywhere"]) is None
    assert run_tool([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert run_tool([sys.executable, "-c", "print(7)"]) == "7\n"


def test_the_room_imports_no_torch():
    code = "import sys; from gnomon.devices import catalogue, host; host.host(); catalogue.every()"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
