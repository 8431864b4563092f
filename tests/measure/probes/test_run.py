from types import SimpleNamespace

import pytest

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.measure.probes.run import index_of, probe, stopwatch_of
from gnomon.measure.probes.timing import CpuStopwatch, CudaStopwatch

GPU = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
NONE = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)


def test_devices_are_read_as_torch_writes_them():
    assert [index_of(name) for name in ("cpu", "cuda", "cuda:0", "cuda:13")] == [None, 0, 0, 13]


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", ""])
def test_any_other_device_is_refused(name):
    with pytest.raises(UsageError, match=f"kernels are measured on 'cpu', 'cuda' or 'cuda:<index>'; got {name!r}"):
        index_of(name)


def test_each_kind_of_device_has_its_clock():
    assert isinstance(stopwatch_of("cpu", NONE), CpuStopwatch)
    assert isinstance(stopwatch_of("cuda:1", GPU), CudaStopwatch)


@pytest.mark.parametrize(("device", "cuda", "seen"), [("cuda", NONE, 0), ("cuda:2", GPU, 2)])
def test_a_gpu_that_is_not_there_cannot_be_measured(device, cuda, seen):
    with pytest.raises(NotRunnable, match=f"no GPU {device}; torch sees {seen} here"):
        stopwatch_of(device, cuda)


def test_kernels_are_measured_in_a_process_of_their_own():
    """The times are this machine's and are not judged; that there is one for each kernel is."""
    names = ["relu 4096", "linear 8x64x64", "index add 1024x16x4096", "batch norm backward 1x16x32"]
    probed = probe(names, budget_s=3.0)
    assert [reading.name for reading in probed.readings] == names
    assert all(reading.seconds > 0 and reading.disturbance > 0 for reading in probed.readings)
    assert 0 < probed.host.view_s < probed.host.backward_s
    assert set(probed.versions) == {"torch", "numpy"}
    assert probed.allocator
