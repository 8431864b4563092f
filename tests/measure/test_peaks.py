import itertools
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gnomon.core.errors import NotRunnable, UsageError
from gnomon.core.records import from_json, to_json
from gnomon.devices import catalogue
from gnomon.devices.device import Device
from gnomon.devices.host import Cache, Host
from gnomon.devices.sanity import contradictions
from gnomon.measure.peaks import Effort, gpu_device, host_device, matrix_product, triad

QUICK = Effort(sizes=(96,), seconds=0.004, array_bytes=2**20)


def machine(**facts) -> Host:
    known = dict(
        cpu="Example CPU", vendor="Intel", architecture="x86_64", sockets=1, cores=2, cpus=2, usable_cpus=2,
        cpu_quota=None, frequency_hz=2.5e9, caches=(Cache(3, "unified", 2**25, 2),), isa=("avx2",), memory_bytes=2**34,
        memory_limit_bytes=None, system="Linux", kernel="6", hypervisor="", container="", gpus=(),
    )  # fmt: skip
    return Host(**(known | facts))


def kept() -> list[Path]:
    return sorted(Path(os.environ["GNOMON_HOME"]).glob("peaks-*.json"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNOMON_HOME", str(tmp_path_factory.mktemp("home")))
        return host_device(machine=machine(), effort=QUICK)


def test_the_measured_device_is_a_sound_cpu(measured):
    assert measured.kind == "cpu"
    assert contradictions(measured) == []
    assert {"float32", "float64"} <= measured.peak_flop_s.keys()
    assert measured.vector("float32") == measured.peak("float32")
    assert measured.units.value == 1
    assert measured.memory_bytes.value == 2**34


def test_sources_say_when_and_how_each_number_was_measured(measured):
    for precision, quantity in measured.peak_flop_s.items():
        text = measured.sources[quantity.source]
        assert text.startswith("measured here, 20")
        setting = re.escape(f", 1 thread, torch {torch.__version__}: ")
        assert re.search(setting + r"product of \d+ x \d+ matrices, best of \d+ trials", text), precision
    assert "triad over three arrays of 1 MiB" in measured.sources[measured.memory_bandwidth_b_s.source]


def test_a_precision_that_is_missing_is_named_with_its_reason(measured):
    for precision in ("float64", "float32", "bfloat16", "float16", "int8"):
        assert precision in measured.peak_flop_s or any(precision in note for note in measured.notes)


def test_a_rate_is_work_over_time_of_the_best_trial():
    """A clock that ticks 2 ms per reading: every trial takes one tick, so the rate is known."""
    clock = itertools.count(0.0, 0.002).__next__
    rate = matrix_product(torch.float32, Effort(sizes=(64,), seconds=0.004), clock)
    assert rate.best == pytest.approx(2 * 64**3 / 0.002)
    assert len(rate.trials) == 3
    assert triad(2**16, 0.0, itertools.count(0.0, 0.002).__next__).best == pytest.approx(3 * 2**16 / 0.002)


def test_short_calls_are_repeated_inside_the_timer():
    """A clock that ticks 0.1 ms per reading: a trial repeats the call, and all repeats count as work."""
    clock = itertools.count(0.0, 1e-4).__next__
    rate = triad(2**8, 0.0, clock)
    assert rate.best == pytest.approx(2**12 * 3 * 2**8 / 1e-4)


@pytest.mark.parametrize("step", [0.0, -1.0])
def test_a_clock_that_stands_still_or_runs_backwards_is_an_error(step):
    with pytest.raises(NotRunnable, match="the clock did not advance"):
        triad(2**8, 0.0, itertools.count(0.0, step).__next__)


def test_a_slow_precision_is_tried_on_a_size_that_fits_the_time():
    """At 2 ms a call whatever the size, the probe says 0.26 GFLOP/s: 2048 would take a minute and is not tried."""
    clock = itertools.count(0.0, 0.002).__next__
    rate = matrix_product(torch.float64, Effort(sizes=(2048,), seconds=0.1), clock)
    side = int(rate.what.split()[2])
    assert 64 <= side <= 128


def test_the_second_request_is_answered_from_what_was_kept():
    steps: list[str] = []
    first = host_device(progress=steps.append, machine=machine(), effort=QUICK)
    assert steps == [*(f"matrix product in {p}" for p in ("float64", "float32", "bfloat16", "float16", "int8")),
                     "memory bandwidth"]  # fmt: skip
    assert host_device(progress=steps.append, machine=machine(), effort=QUICK) == first
    assert len(steps) == 6
    host_device(refresh=True, progress=steps.append, machine=machine(), effort=QUICK)
    assert len(steps) == 12


def test_another_cpu_instruction_set_or_thread_count_is_measured_on_its_own():
    for host, threads in ((machine(), 1), (machine(), 2), (machine(cpu="Other"), 1), (machine(isa=("avx512f",)), 1)):
        host_device(threads=threads, machine=host, effort=QUICK)
    assert len(kept()) == 4


@pytest.mark.parametrize("text", ["", "{", "null", '{"schema": "gnomon/device/99"}', '{"schema": "gnomon/host/1"}'])
def test_a_damaged_file_is_measured_again(text):
    first = host_device(machine=machine(), effort=QUICK)
    (path,) = kept()
    path.write_text(text)
    again = host_device(machine=machine(), effort=QUICK)
    assert again.name == first.name
    assert from_json(json.loads(path.read_text()), Device) == again


def test_a_home_that_cannot_be_written_costs_only_the_keeping():
    host_device(machine=machine(), effort=QUICK)
    (path,) = kept()
    path.unlink()
    path.mkdir()
    assert host_device(machine=machine(), effort=QUICK).kind == "cpu"


def test_the_number_of_threads_of_the_process_is_left_as_it_was():
    before = torch.get_num_threads()
    host_device(threads=2, machine=machine(), effort=QUICK)
    assert torch.get_num_threads() == before


def test_threads_beyond_the_usable_cores_are_refused():
    with pytest.raises(NotRunnable, match=r"wanted 3 threads; this process may use 2 core\(s\)"):
        host_device(threads=3, machine=machine())
    with pytest.raises(NotRunnable, match=r"may use 1 core"):
        host_device(threads=2, machine=machine(cpu_quota=1.5))
    with pytest.raises(UsageError, match="wanted at least 1, got 0"):
        host_device(threads=0, machine=machine())


def test_a_machine_that_hides_its_memory_needs_a_device_file():
    with pytest.raises(NotRunnable, match="does not tell this machine's memory size"):
        host_device(machine=machine(memory_bytes=None), effort=QUICK)


def test_lanes_are_left_out_where_products_run_on_another_unit():
    device = host_device(machine=machine(vendor="Apple"), effort=QUICK)
    assert device.vector_flop_s == {}
    assert any("unit of their own" in note for note in device.notes)


def test_a_measured_device_survives_json(measured):
    assert from_json(json.loads(json.dumps(to_json(measured))), Device) == measured


def card(name: str, capability: tuple[int, int], units: int, gib: float, **facts) -> SimpleNamespace:
    """What torch tells of a GPU; clocks in kHz, bus in bits."""
    known = dict(name=name, major=capability[0], minor=capability[1], multi_processor_count=units,
                 total_memory=int(gib * 2**30), clock_rate=None, memory_clock_rate=None, memory_bus_width=None,
                 L2_cache_size=0)  # fmt: skip
    return SimpleNamespace(**(known | facts))


@pytest.mark.parametrize(
    ("properties", "slug"),
    [
        (card("NVIDIA H100 80GB HBM3", (9, 0), 132, 79.1), "H100-SXM"),
        (card("Tesla T4", (7, 5), 40, 14.6), "T4"),
        (card("NVIDIA A100-SXM4-40GB", (8, 0), 108, 39.4), "A100-40GB-SXM"),
        (card("AMD Instinct MI250X", (9, 0), 110, 64), "MI250X-GCD"),
        (card("AMD Instinct MI300X", (9, 4), 304, 191.7), "MI300X"),
    ],
)
def test_a_gpu_that_the_catalogue_knows_is_its_entry(properties, slug):
    assert gpu_device(properties=properties) == catalogue.get(slug)


def test_a_card_of_another_memory_size_keeps_its_own():
    device = gpu_device(properties=card("Tesla V100-SXM2-16GB", (7, 0), 80, 15.8))
    assert device.memory_bytes.value == int(15.8 * 2**30)
    assert device.peak("float16") == catalogue.get("V100-SXM2").peak("float16")
    assert contradictions(device) == []


@pytest.mark.parametrize(
    ("slug", "capability", "memory_khz", "bus"),
    [("T4", (7, 5), 5001000, 256), ("V100-SXM2", (7, 0), 877000, 4096), ("A100-80GB-SXM", (8, 0), 1593000, 5120),
     ("A10", (8, 6), 6251000, 384), ("L40S", (8, 9), 9001000, 384), ("H100-SXM", (9, 0), 2619000, 5120),
     ("B200-SXM", (10, 0), 3996000, 8192)],
)  # fmt: skip
def test_a_derived_gpu_comes_near_the_data_sheet(slug, capability, memory_khz, bus):
    sheet = catalogue.get(slug)
    assert sheet.clock_hz is not None
    clocks = {"clock_rate": sheet.clock_hz.value / 1e3, "memory_clock_rate": memory_khz, "memory_bus_width": bus}
    device = gpu_device(properties=card("An unknown card", capability, int(sheet.units.value), 16, **clocks))
    assert contradictions(device) == []
    assert device.memory_bandwidth_b_s.value == pytest.approx(sheet.memory_bandwidth_b_s.value, rel=0.03)
    for precision, quantity in device.peak_flop_s.items():
        if precision in sheet.peak_flop_s:
            assert quantity.value == pytest.approx(sheet.peak(precision), rel=0.09), precision


def test_a_slice_of_a_known_gpu_is_not_taken_for_the_whole():
    with pytest.raises(NotRunnable, match="write a device file"):
        gpu_device(properties=card("NVIDIA A100-SXM4-40GB", (8, 0), 14, 4.75))


def test_a_gpu_of_which_too_little_is_known_needs_a_device_file():
    with pytest.raises(NotRunnable, match="'AMD Radeon RX 7900 XTX' is not in the catalogue"):
        gpu_device(properties=card("AMD Radeon RX 7900 XTX", (11, 0), 96, 24))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_asking_for_a_gpu_that_is_not_there_says_so():
    with pytest.raises(NotRunnable, match="no GPU cuda:0; torch sees 0"):
        gpu_device(0)


@pytest.mark.slow
def test_more_effort_finds_a_float32_peak_of_a_real_machine():
    """The whole protocol on this machine: within 12 s of CPU time, and float32 above a scalar core's rate."""
    device = host_device(refresh=True)
    assert device.peak("float32") > 4e9
    assert device.memory_bandwidth_b_s.value > 1e9
