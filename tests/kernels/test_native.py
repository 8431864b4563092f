"""Building and calling C++ kernels: the cache, the variants, the way out when there is no compiler."""

import ctypes
import multiprocessing
import stat
import threading
import warnings
from pathlib import Path

import pytest
import torch

from gnomon.kernels import _native
from gnomon.kernels._native import Kernels, NativeUnavailable, build, compiler, isas, parallel

SOURCE = """
#include <cstdint>
extern "C" __attribute__((visibility("default"))) void fill(int64_t *next, int64_t items, int64_t *out) {
  for (;;) {
    const int64_t i = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    if (i >= items) return;
    out[i] += i + 1;
  }
}
"""
SIGNATURES = {"fill": (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)}

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GNOMON_HOME", str(tmp_path / "home"))
    path = tmp_path / "count" / "cpu.cpp"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def built(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "kernels").iterdir())


@needs_compiler
def test_a_library_is_built_once_and_found_again(source, tmp_path):
    first = build(source)
    made = first.stat().st_mtime_ns
    assert build(source) == first
    assert first.stat().st_mtime_ns == made
    assert built(tmp_path) == [first], "nothing else may stay behind"


@needs_compiler
def test_another_source_or_header_is_another_library(source):
    libraries = {build(source)}
    source.with_name("tile.h").write_text("#define TILE 4\n")
    libraries.add(build(source))
    source.with_name("tile.h").write_text("#define TILE 8\n")
    libraries.add(build(source))
    source.write_text(SOURCE + "// changed\n")
    libraries.add(build(source))
    assert len(libraries) == 4


@needs_compiler
@pytest.mark.parametrize("isa", isas())
def test_every_instruction_set_of_this_machine_builds_and_runs(source, isa):
    out = torch.zeros(3, dtype=torch.int64)
    Kernels("count", source, SIGNATURES).library(isa).fill(ctypes.byref(ctypes.c_int64(0)), 3, out.data_ptr())
    assert out.tolist() == [1, 2, 3]


def test_torchs_capability_decides_which_instruction_sets_are_offered(monkeypatch):
    offered = {}
    for capability in ("AVX512", "AVX2", "DEFAULT", "SVE256"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        offered[capability] = isas()
    assert offered == {
        "AVX512": ("avx512", "avx2", "baseline"),
        "AVX2": ("avx2", "baseline"),
        "DEFAULT": ("baseline",),
        "SVE256": ("baseline",),
    }


def test_an_instruction_set_that_the_processor_lacks_is_refused_with_its_name(source, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert Kernels("count", source, SIGNATURES).why_not("avx512") == (
        "this processor (or ATEN_CPU_CAPABILITY) has no avx512"
    )


def test_without_a_compiler_there_is_one_warning_that_says_what_to_do(source, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    kernels = Kernels("count", source, SIGNATURES)
    with pytest.warns(RuntimeWarning, match=r"count runs its slower reference: .*install g\+\+ or set CXX"):
        assert kernels.get() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.get() is None


@needs_compiler
def test_what_the_compiler_said_is_in_the_error(source):
    source.write_text("int broken( {")
    with pytest.raises(NativeUnavailable, match=r"failed on cpu.cpp for baseline(.|\n)*error"):
        build(source, "baseline")


@needs_compiler
def test_a_library_that_does_not_load_is_told_not_raised(source):
    build(source).write_bytes(b"not a library")
    assert "cannot load cpu.cpp" in (Kernels("count", source, SIGNATURES).why_not() or "")


def test_a_compiler_that_does_not_answer_is_unavailable(source, tmp_path, monkeypatch):
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(NativeUnavailable, match=r"failed on cpu\.cpp"):
        build(source)


def test_a_cache_that_cannot_be_made_is_unavailable(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GNOMON_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(NativeUnavailable, match="set GNOMON_HOME"):
        build(source)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_is_done_exactly_once_on_any_number_of_threads(source, threads):
    library = Kernels("count", source, SIGNATURES).library("baseline")
    out = torch.zeros(1000, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parallel(lambda counter: library.fill(counter, 1000, out.data_ptr()), 1000)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, torch.arange(1, 1001))


def test_work_is_called_on_as_many_threads_as_torch_has_but_not_more_than_items():
    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meet = threading.Barrier(2)
        parallel(lambda counter: (seen.append(threading.get_ident()), meet.wait(10)), 5)
        assert len(set(seen)) == 2
        parallel(lambda counter: seen.append(threading.get_ident()), 1)
        assert len(seen) == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_on_another_thread_reaches_the_caller():
    main = threading.get_ident()
    meet = threading.Barrier(2)

    def work(counter):
        meet.wait(10)
        if threading.get_ident() != main:
            raise ValueError("from the other thread")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="from the other thread"):
            parallel(work, 2)
    finally:
        torch.set_num_threads(before)


def _twice(results) -> None:
    torch.set_num_threads(2)
    meet = threading.Barrier(2)
    parallel(lambda counter: meet.wait(10), 2)
    results.put("done")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meet = threading.Barrier(2)
    parallel(lambda counter: meet.wait(10), 2)  # the pool of this process exists now
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_twice, args=(results,))
    child.start()
    child.join(30)
    torch.set_num_threads(before)
    assert child.exitcode == 0
    assert results.get() == "done"


def test_the_source_of_no_kernel_asks_for_this_machine_alone():
    assert not any("native" in flag for flags in _native.ISAS.values() for flag in flags)
