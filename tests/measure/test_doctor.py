import itertools
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from gnomon.measure.doctor import (
    SUPPORTED_PYTHON,
    SUPPORTED_TORCH,
    Finding,
    allocator,
    allocator_regime,
    attention_backends,
    compiler,
    counters,
    disk,
    examine_host,
    native_kernels,
    packages,
    python,
    threads,
    timer,
    torch_itself,
    writable,
)

from ..devices.trees import AMD, DOCKER, INTEL, grow

GLIBC = os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") and sys.platform == "linux" else None
needs_glibc = pytest.mark.skipif(not GLIBC, reason="needs glibc")


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return examine_host()


def test_everything_that_a_newcomer_asks_for_is_examined(findings):
    names = [finding.name for finding in findings]
    assert names == ["python", "torch", "c++ compiler", "native kernels", "gpu", "attention backends", "transformers",
                     "safetensors", "onnxruntime", "triton", "matplotlib", "threads", "allocator", "hardware counters",
                     "timer", "store", "disk"]  # fmt: skip


def test_what_is_wrong_says_what_it_costs_and_how_to_mend_it(findings):
    for finding in findings:
        assert finding.detail
        if finding.status == "ok":
            assert finding.cost == finding.remedy == ""
        else:
            assert finding.cost
            assert finding.remedy


def test_the_torch_that_runs_these_tests_is_fine(findings):
    assert findings[1].status == "ok"


def test_the_kernels_that_did_not_build_say_why_in_one_line():
    found = native_kernels(lambda: "g++ failed on cpu.cpp for avx512:\nerror: 200 lines of it")
    assert found.status == "missing"
    assert found.detail == "g++ failed on cpu.cpp for avx512:"


def test_every_backend_of_attention_is_listed_able_or_with_its_reason():
    detail = attention_backends().detail
    assert "reference on c" in detail or "reference:" in detail
    for name in ("cpu", "triton", "sdpa", "flex", "natten"):
        assert name in detail


def test_the_supported_versions_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"torch{SUPPORTED_TORCH}" in project["dependencies"]
    assert project["requires-python"] == SUPPORTED_PYTHON


@pytest.mark.parametrize(
    ("version", "status"),
    [("2.9.0", "ok"), ("2.13.0+cpu", "ok"), ("2.13.0+cu130", "ok"), ("2.8.1", "slow"), ("2.14.0", "slow")],
)
def test_a_torch_out_of_range_is_told(version, status):
    assert torch_itself(lambda: version).status == status


def test_a_broken_torch_is_missing_whatever_it_raises():
    def broken() -> str:
        raise OSError("libtorch_cpu.so: undefined symbol: iJIT_NotifyEvent")

    finding = torch_itself(broken)
    assert finding.status == "missing"
    assert "OSError: libtorch_cpu.so: undefined symbol" in finding.detail
    assert finding.remedy == f'pip install "torch{SUPPORTED_TORCH}"'


def test_an_old_python_is_told():
    assert python("3.10.14").status == "missing"
    assert python("3.15.0rc1").status == "ok"


def test_a_compiler_that_is_not_there_or_does_not_work_is_missing(tmp_path):
    absent = compiler({"CXX": "no-such-compiler"})
    assert (absent.status, absent.detail) == ("missing", "none found as CXX=no-such-compiler")
    fake = tmp_path / "fake-cxx"
    fake.write_text("#!/bin/sh\necho 'cannot find crt1.o' >&2\nexit 1\n")
    fake.chmod(0o755)
    broken = compiler({"CXX": str(fake)})
    assert broken.status == "missing"
    assert broken.detail.endswith("cannot compile a trial file: cannot find crt1.o")
    fake.chmod(0o755)
    fake.write_text("#!/no/such/interpreter\n")
    assert "does not run" in compiler({"CXX": str(fake)}).detail


def test_packages_are_looked_up_by_name():
    here = {finding.name: finding.status for finding in packages(lambda name: object() if name == "triton" else None)}
    assert here["triton"] == "ok"
    assert {status for name, status in here.items() if name != "triton"} == {"missing"}


def test_threads_beyond_the_cores_are_slow(tmp_path):
    root = grow(tmp_path, AMD, DOCKER)
    finding = threads(root, {"OMP_NUM_THREADS": "8"}, used=8)
    assert finding.status == "slow"
    assert (
        finding.detail == "1 of 16 cores usable, 1.5 CPUs' worth of time granted; torch would use 8 (OMP_NUM_THREADS=8)"
    )
    assert finding.remedy == "set OMP_NUM_THREADS=1"
    assert threads(root, {}, used=1).status == "ok"


@needs_glibc
def test_plain_glibc_gives_large_tensors_back_and_that_is_slow(tmp_path):
    root = grow(tmp_path, INTEL)
    assert GLIBC
    version = GLIBC.split()[1]
    page = os.sysconf("SC_PAGE_SIZE") // 1024
    assert allocator_regime(root, {}) == (
        f"glibc {version} malloc, freed memory over 32 MiB goes back to the system; "
        f"{page} KiB pages (transparent_hugepage madvise)"
    )
    assert allocator(root, {}).status == "slow"


@needs_glibc
@pytest.mark.parametrize(
    ("environ", "keeps"),
    [
        ({"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}, True),
        ({"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=0x100000000"}, True),
        ({"MALLOC_MMAP_MAX_": "0"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "100000000000"}, False),
        ({"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "many"}, False),
        ({"GLIBC_TUNABLES": "nonsense"}, False),
    ],
)
def test_both_settings_together_keep_memory_and_either_alone_does_not(tmp_path, environ, keeps):
    assert ("is kept" in allocator_regime(grow(tmp_path, INTEL), environ)) is keeps
    assert allocator(tmp_path, environ).status == ("ok" if keeps else "slow")


@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc_minimal", "mimalloc"])
def test_a_preloaded_allocator_is_seen_in_the_memory_map(tmp_path, name):
    line = f"7f00-7f01 r-xp 0000 fe:00 33 /usr/lib/x86_64-linux-gnu/lib{name}.so.2\n"
    root = grow(tmp_path, INTEL, {"proc/self/maps": line})
    assert allocator_regime(root, {}).startswith(name.removesuffix("_minimal"))
    assert allocator(root, {}).status == "ok"


@pytest.mark.parametrize(
    ("mode", "environ", "huge"),
    [
        ("[always] madvise never", {}, True),
        ("always [madvise] never", {}, False),
        ("always [madvise] never", {"THP_MEM_ALLOC_ENABLE": "1"}, True),
        ("always [madvise] never", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, True),
        ("always madvise [never]", {"THP_MEM_ALLOC_ENABLE": "1"}, False),
    ],
)
def test_huge_pages_are_used_when_kernel_and_process_agree(tmp_path, mode, environ, huge):
    root = grow(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": mode})
    assert ("transparent huge pages" in allocator_regime(root, environ)) is huge


def test_the_regime_is_one_line():
    assert re.fullmatch(r"[^\n]+; .* pages[^\n]*", allocator_regime())


def test_counters_that_fail_say_why(tmp_path):
    assert counters(tmp_path, lambda: None) == Finding("hardware counters", "ok", "instructions can be counted")
    strict = counters(grow(tmp_path, {"proc/sys/kernel/perf_event_paranoid": "3\n"}), lambda: "Permission denied")
    assert strict.detail == "Permission denied; perf_event_paranoid is 3"
    assert strict.remedy == "sysctl kernel.perf_event_paranoid=2 (as root)"
    virtual = counters(grow(tmp_path, INTEL), lambda: "No such file or directory")
    assert "virtual PMU" in virtual.remedy
    assert counters(tmp_path / "none", lambda: "not Linux").detail == "not Linux"


def test_a_coarse_clock_is_slow_and_a_dead_one_missing():
    assert timer(itertools.count(0.0, 1e-7).__next__).status == "ok"
    coarse = timer(itertools.count(0.0, 0.015).__next__)
    assert (coarse.status, coarse.detail) == ("slow", "two readings differ by 15 ms at least")
    assert timer(itertools.count(5.0, -1.0).__next__).status == "missing"


def test_a_store_that_cannot_be_written_is_missing(tmp_path):
    def nowhere() -> Path:
        return tmp_path / "no" / "such"

    assert writable(lambda: tmp_path).status == "ok"
    finding = writable(nowhere)
    assert finding.status == "missing"
    assert "No such file or directory" in finding.detail
    assert "GNOMON_HOME" in finding.remedy
    assert disk(nowhere).status == "missing"
    assert re.fullmatch(r"[\d.]+ .*B free", disk(lambda: tmp_path).detail)
