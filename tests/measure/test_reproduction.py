import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.core.errors import DamagedData, ManifestError
from gnomon.measure import reproduction
from gnomon.measure.reproduction import is_failure
from gnomon.spec.manifest import Expected, Result

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
TIMES = st.lists(st.floats(1e-6, 10), min_size=2, max_size=5).map(tuple)


def expected(folder, values, **changes):
    np.save(folder / "y.npy", values)
    sha = hashlib.sha256((folder / "y.npy").read_bytes()).hexdigest()
    dtype = {"f": "float32", "i": "int64"}[values.dtype.kind]
    return replace(Expected("y", dtype, values.shape, DIGEST, "y.npy", sha), **changes)


def found(folder, values, digest=OTHER):
    np.save(folder / "new.npy", values)
    dtype = {"f": "float32", "i": "int64"}[values.dtype.kind]
    return {"name": "y", "dtype": dtype, "shape": list(values.shape), "digest": digest, "file": folder / "new.npy"}


def verdict(folder, before, after, **tolerance):
    before, after = np.asarray(before), np.asarray(after)
    return reproduction.output(expected(folder, before, **tolerance), found(folder, after), folder).verdict


def test_a_value_may_differ_by_its_tolerance_and_no_more(tmp_path):
    assert verdict(tmp_path, [1.0, 100.0], [1.09, 100.9], rtol=0.01, atol=0.1) == "within tolerance"
    assert verdict(tmp_path, [1.0, 100.0], [1.09, 101.2], rtol=0.01, atol=0.1) == "different"
    assert verdict(tmp_path, [1.0, 2.0], [1.0, 2.0]) == "within tolerance"
    assert verdict(tmp_path, [1, 2], [1, 3]) == "different"


def test_infinities_equal_themselves_and_nan_equals_nothing(tmp_path):
    inf, nan = float("inf"), float("nan")
    assert verdict(tmp_path, [inf, -inf], [inf, -inf]) == "within tolerance"
    assert verdict(tmp_path, [inf], [-inf], atol=1.0) == "different"
    assert verdict(tmp_path, [inf], [5.0], rtol=0.1) == "different"
    assert verdict(tmp_path, [5.0], [inf], rtol=0.1) == "different"
    assert verdict(tmp_path, [1.0], [nan], atol=1e9) == "different"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1), st.data())
def test_the_verdict_is_that_of_numpy(tmp_path_factory, before, atol, rtol, data):
    folder = tmp_path_factory.mktemp("values")
    after = [x + data.draw(st.floats(-2, 2)) for x in before]
    close = np.allclose(after, before, atol=atol, rtol=rtol)
    assert (verdict(folder, before, after, atol=atol, rtol=rtol) == "within tolerance") == close


def test_the_same_bits_need_no_file_and_other_bits_without_one_differ(tmp_path):
    alone = Expected("y", "float32", (1,), DIGEST)
    one = found(tmp_path, np.zeros(1, np.float32), DIGEST)
    assert reproduction.output(alone, one, tmp_path).verdict == "same"
    part = reproduction.output(alone, {**one, "digest": OTHER}, tmp_path)
    assert (part.verdict, is_failure(part)) == ("different", True)


def test_an_output_of_another_shape_or_dtype_or_none_at_all_differs(tmp_path):
    wanted = Expected("y", "float32", (2,), DIGEST)
    part = reproduction.output(wanted, found(tmp_path, np.zeros(3, np.float32), DIGEST), tmp_path)
    assert (part.verdict, part.detail) == ("different", "wanted float32 [2], got float32 [3]")
    assert reproduction.output(wanted, None, tmp_path).verdict == "different"


def test_a_changed_file_of_expected_values_is_refused(tmp_path):
    one = expected(tmp_path, np.zeros(2))
    data = bytearray((tmp_path / "y.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "y.npy").write_bytes(data)
    with pytest.raises(DamagedData, match=f"y.npy: wanted SHA-256 {one.sha256}, got"):
        reproduction.output(one, found(tmp_path, np.zeros(2)), tmp_path)
    (tmp_path / "y.npy").write_bytes(b"no array")
    lied = replace(one, sha256=hashlib.sha256(b"no array").hexdigest())
    with pytest.raises(DamagedData, match=r"is no .npy file"):
        reproduction.output(lied, found(tmp_path, np.zeros(2)), tmp_path)
    with pytest.raises(ManifestError, match="may not leave the manifest's folder"):
        reproduction.output(replace(one, file="../y.npy"), found(tmp_path, np.zeros(2)), tmp_path)


def test_pickled_arrays_are_not_read(tmp_path):
    np.save(tmp_path / "y.npy", np.array([{"a": 1}], dtype=object))
    sha = hashlib.sha256((tmp_path / "y.npy").read_bytes()).hexdigest()
    one = Expected("y", "float32", (1,), DIGEST, "y.npy", sha)
    with pytest.raises(DamagedData, match=r"is no .npy file"):
        reproduction.output(one, found(tmp_path, np.zeros(1, np.float32)), tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "better", "tolerance", "verdict"),
    [
        (0.9, 0.9, True, 0.0, "same"),
        (0.9, 0.95, True, 0.0, "within tolerance"),
        (0.9, 0.89, True, 0.02, "within tolerance"),
        (0.9, 0.87, True, 0.02, "worse"),
        (0.9, 0.87, False, None, "within tolerance"),
        (0.9, 0.91, False, None, "worse"),
        (0.9, None, True, None, "not known"),
    ],
)
def test_quality_may_be_worse_by_its_tolerance(before, after, better, tolerance, verdict):
    wanted = Result(before, "", 1, higher_is_better=better, tolerance=tolerance)
    assert reproduction.quality(wanted, after).verdict == verdict


def result(samples, **changes):
    return replace(Result(sum(samples) / len(samples), "s", len(samples), samples=tuple(samples)), **changes)


def test_times_are_worse_only_when_the_interval_of_the_ratio_says_so():
    base = result([1.0, 1.01, 0.99])
    for samples, wanted in (
        ([1.0, 1.01, 0.99], "no worse"),
        ([0.5, 0.51, 0.49], "no worse"),
        ([2.0, 2.02, 1.98], "worse"),
        ([2.0, 0.7, 1.2], "no worse"),
    ):
        part = reproduction.performance("latency_p50_s", base, result(samples), same_machine=True)
        assert part.verdict == wanted, samples
    rate = result([100.0, 101.0, 99.0], higher_is_better=True)
    slower = result([50.0, 51.0, 49.0], higher_is_better=True)
    assert reproduction.performance("throughput_per_s", rate, slower, same_machine=True).verdict == "worse"
    assert reproduction.performance("throughput_per_s", slower, rate, same_machine=True).verdict == "no worse"


@given(TIMES, TIMES)
def test_another_machine_never_passes_or_fails(before, after):
    part = reproduction.performance("latency_p50_s", result(before), result(after), same_machine=False)
    assert (part.verdict, is_failure(part)) == ("other hardware", False)


def test_one_session_is_no_verdict():
    part = reproduction.performance("latency_p50_s", result([1.0]), result([9.0, 9.1]), same_machine=True)
    assert (part.verdict, is_failure(part)) == ("not known", False)


def test_machines_are_told_apart_by_what_runs_the_task():
    here = {"cpu": "A", "architecture": "x86_64", "usable_cpus": 2, "cpu_quota": None, "isa": ("avx2",), "gpus": []}
    assert reproduction.hardware(here, {**here, "isa": ["avx2"], "kernel": "newer"}, "cpu").verdict == "same"
    part = reproduction.hardware(here, {**here, "usable_cpus": 4}, "cpu")
    assert (part.verdict, part.detail) == ("other hardware", "usable_cpus 2 -> 4")
    gpu = {**here, "gpus": [{"name": "NVIDIA H100"}]}
    assert reproduction.hardware(here, gpu, "cpu").verdict == "same"
    assert reproduction.hardware(here, gpu, "cuda:0").verdict == "other hardware"


def test_other_versions_are_told_and_do_not_count():
    (part,) = reproduction.software({"torch": "2.9", "numpy": "2.0"}, {"torch": "2.10", "onnx": "1.0"})
    assert part.detail == "numpy 2.0 -> none, onnx none -> 1.0, torch 2.9 -> 2.10"
    assert (part.verdict, is_failure(part)) == ("different", False)
    assert reproduction.software({"torch": "2.9"}, {"torch": "2.9"})[0].verdict == "same"


def test_each_part_of_a_specification_that_differs_is_one_of_its_own():
    parts = reproduction.specification(["model: locked a, now b", "task: locked c, now d"])
    assert [(part.name, is_failure(part)) for part in parts] == [("model", True), ("task", True)]
    assert [part.verdict for part in reproduction.specification([])] == ["same"]
