import platform
from pathlib import Path

import pytest

from gnomon.core.records import structure
from gnomon.devices.host import host
from gnomon.spec.manifest import HardwareSpec, SoftwareSpec
from gnomon.spec.require import ENV, facts, installed, malformed, missing_hardware, missing_software
from tests.spec.write import HOST


def hardware(**spec):
    return [f"{key}: {text}" for key, text in missing_hardware(structure(HardwareSpec, spec), HOST)]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cpu": {"arch": ["aarch64", "x86_64"], "min_cores": 4, "isa": ["avx2", "fma"]}},
        {"memory_gib": 8, "disk_gib": 100},
        {"accelerators": [{}]},
        {"accelerators": [{"vendor": "nvidia", "arch_min": "sm_80", "memory_gib": 40}]},
        {"accelerators": [{"arch_min": "sm_75"}]},
    ],
)
def test_what_this_machine_meets_is_no_complaint(spec):
    assert hardware(**spec) == []


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"cpu": {"arch": ["aarch64"]}}, "cpu.arch: wanted aarch64, this machine is x86_64"),
        ({"cpu": {"min_cores": 5}}, "cpu.min_cores: wanted 5 cores, usable here: 4"),
        ({"cpu": {"isa": ["avx2", "amx_int8"]}}, "cpu.isa: wanted amx_int8, this CPU has avx2, fma"),
        ({"memory_gib": 8.1}, "memory_gib: wanted 8.1 GiB, this machine has 8 GiB"),
        ({"disk_gib": 101}, "disk_gib: wanted 101 GiB, this machine has 100 GiB"),
        (
            {"accelerators": [{"count": 2}]},
            "accelerators[0]: wanted 2 accelerators, this machine has NVIDIA A100 40 GiB",
        ),
        (
            {"accelerators": [{"vendor": "AMD"}]},
            "accelerators[0]: wanted 1 accelerator (AMD), this machine has NVIDIA A100 40 GiB",
        ),
        (
            {"accelerators": [{"arch_min": "sm_90"}]},
            "accelerators[0]: wanted 1 accelerator (sm_90 or newer), this machine has NVIDIA A100 40 GiB",
        ),
        (
            {"accelerators": [{"arch_min": "gfx90a"}]},
            "accelerators[0]: wanted 1 accelerator (gfx90a or newer), this machine has NVIDIA A100 40 GiB",
        ),
        (
            {"accelerators": [{"memory_gib": 41}]},
            "accelerators[0]: wanted 1 accelerator (41 GiB), this machine has NVIDIA A100 40 GiB",
        ),
    ],
)
def test_what_this_machine_lacks_is_named(spec, complaint):
    assert hardware(**spec) == [complaint]


def test_a_fact_that_is_not_known_never_meets_a_predicate():
    cpu = {"arch": ["x86_64"], "min_cores": 1, "isa": ["avx2"]}
    spec = structure(HardwareSpec, {"cpu": cpu, "memory_gib": 1, "disk_gib": 1, "accelerators": [{}]})
    assert [key for key, _ in missing_hardware(spec, {})] == [
        "cpu.arch", "cpu.min_cores", "cpu.isa", "memory_gib", "disk_gib", "accelerators[0]",
    ]  # fmt: skip


def test_architectures_compare_as_their_makers_number_them():
    amd = {"accelerators": [{"arch": "gfx942"}]}
    for least, meets in {"gfx90a": True, "gfx942": True, "gfx950": False, "gfx1100": False}.items():
        spec = structure(HardwareSpec, {"accelerators": [{"arch_min": least}]})
        assert (missing_hardware(spec, amd) == []) == meets
    new = {"accelerators": [{"arch": "sm_100"}]}
    assert missing_hardware(structure(HardwareSpec, {"accelerators": [{"arch_min": "sm_90"}]}), new) == []


def test_the_facts_of_a_recorded_machine(tmp_path):
    files = {
        "proc/cpuinfo": "processor : 0\nphysical id : 0\ncore id : 0\nmodel name : A CPU\nflags : lm avx2 fma\n",
        "proc/meminfo": "MemTotal: 4194304 kB\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    gpu = "NVIDIA L4, 23034, 550.1, 2040, 72.00, 8.9\n"
    found = facts(host(Path(tmp_path), "Linux", lambda command: gpu if command[0] == "nvidia-smi" else None))
    assert (found["arch"], found["cores"], found["isa"], found["memory_bytes"]) == (
        "x86_64",
        1,
        ("avx2", "fma"),
        4 * 2**30,
    )
    assert found["accelerators"][0]["name"] == "NVIDIA L4"
    assert found["accelerators"][0]["memory_bytes"] == 23034 * 2**20
    assert missing_hardware(structure(HardwareSpec, {"accelerators": [{"arch_min": "sm_80"}]}), found) == []
    assert missing_hardware(structure(HardwareSpec, {"accelerators": [{"arch_min": "sm_90"}]}), found) != []
    assert found["disk_bytes"] > 0


def test_software_that_is_here_is_no_complaint_and_markers_are_heeded():
    spec = SoftwareSpec(python=">=3.11", packages=("packaging>=24", "no-such-package; python_version < '3'"))
    assert malformed(spec, trust=False) == []
    assert missing_software(spec) == []


def test_software_that_is_missing_comes_with_the_command_that_gets_it():
    spec = SoftwareSpec(python="<3", packages=("no-such-package>=2", "packaging<1"))
    assert missing_software(spec) == [
        ("python", f"wanted Python <3, this is {platform.python_version()}"),
        ("packages[0]", "no-such-package is not installed: pip install 'no-such-package>=2'"),
        ("packages[1]", f"wanted packaging<1, installed is {installed('packaging')}: pip install 'packaging<1'"),
    ]


def test_malformed_software_names_the_key():
    spec = SoftwareSpec(
        python="three", packages=("torch >=", "x @ https://example.org/x.whl"), env={"OMP_NUM_THREAD": "1"}
    )
    assert [key for key, _ in malformed(spec, trust=False)] == [
        "python",
        "packages[0]",
        "packages[1]",
        "env.OMP_NUM_THREAD",
    ]
    assert "Did you mean 'OMP_NUM_THREADS'?" in malformed(spec, trust=False)[-1][1]


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "CUDA_INJECTION64_PATH", "NCCL_NET_PLUGIN", "PATH"]
)
def test_variables_that_load_code_want_trust(name):
    spec = SoftwareSpec(env={name: "x"})
    assert name not in ENV
    assert [key for key, _ in malformed(spec, trust=False)] == [f"env.{name}"]
    assert malformed(spec, trust=True) == []
