import pytest
import torch

from gnomon.measure.clock import Clock
from gnomon.measure.levels import kernel, library
from gnomon.measure.levels.kernel import Activity, KernelTracer, activities, kernel_spans, without_layer
from gnomon.workload.program import build
from tests.measure import tasks


def _step():
    """A step on the host; its kernels run later, the second even after the step has returned."""
    return [
        Activity("gnomon::step", False, 1, 1000, 500),
        Activity("aten::linear", False, 2, 1010, 200),
        Activity("aten::addmm", False, 3, 1020, 100),
        Activity("aten::relu", False, 4, 1300, 50),
        Activity("sgemm", True, 3, 1180, 250),
        Activity("relu_kernel", True, 4, 1600, 40),
    ]


def test_a_kernels_parent_is_the_operator_that_launched_it_not_the_one_around_it_in_time():
    spans = kernel_spans(_step(), "tiny")[0]
    by_name = {span.name: span for span in spans}
    assert spans[by_name["sgemm"].parent].name == "aten::addmm"
    assert spans[by_name["relu_kernel"].parent].name == "aten::relu"
    assert spans[by_name["aten::addmm"].parent].name == "aten::linear"
    assert spans[by_name["aten::linear"].parent].name == "tiny"
    assert by_name["tiny"].parent is None


def test_times_count_from_the_start_of_the_step():
    by_name = {span.name: span for span in kernel_spans(_step(), "tiny")[0]}
    assert by_name["tiny"].start_s == 0.0
    assert by_name["relu_kernel"].start_s == pytest.approx(600e-9)
    assert by_name["relu_kernel"].wall_s == pytest.approx(40e-9)
    assert {span.level for span in by_name.values()} == {"model", "operator", "kernel"}


def test_every_kernel_is_kept_even_when_no_operator_claims_it():
    spans = kernel_spans([*_step(), Activity("memset", True, 99, 1100, 5)], "tiny")[0]
    assert next(span for span in spans if span.name == "memset").parent is None


def test_a_profile_without_the_step_is_refused():
    with pytest.raises(ValueError, match="holds no 'gnomon::step'"):
        kernel_spans(_step()[1:], "tiny")


def _layered():
    """Two layers in a model, the second inside the first; one kernel of each, one copy without an operator."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    return list(model.named_modules()), [
        Activity("gnomon::step", False, 1, 1000, 500),
        Activity("gnomon::layer::0", False, 5, 1010, 300),
        Activity("gnomon::layer::1", False, 6, 1020, 200),
        Activity("aten::addmm", False, 2, 1030, 100),
        Activity("aten::add", False, 3, 1250, 40),
        Activity("sgemm", True, 2, 1600, 250, (1100, 9), 7),
        Activity("add_kernel", True, 3, 1900, 20, (1260, 5), 7),
        Activity("Memcpy HtoD", True, 0, 1040, 20, None, 13),
    ]


def test_every_kernel_has_exactly_one_innermost_layer_or_is_counted_as_without():
    modules, step = _layered()
    spans, ambiguous = kernel_spans(step, "tiny", modules)
    assert ambiguous == 0
    by_name = {span.name: span for span in spans}
    assert by_name["sgemm"].attributes["module"] == "0"
    assert by_name["add_kernel"].attributes["module"] == ""
    assert [spans[i].name for i in without_layer(spans)] == ["Memcpy HtoD"]


def test_a_kernel_keeps_its_launch_beside_its_execution():
    modules, step = _layered()
    sgemm = next(span for span in kernel_spans(step, "tiny", modules)[0] if span.name == "sgemm")
    assert sgemm.wall_s == pytest.approx(250e-9)
    assert sgemm.attributes["launched_s"] == pytest.approx(100e-9)
    assert sgemm.attributes["launch_wall_s"] == pytest.approx(9e-9)
    assert sgemm.attributes["stream"] == 7


def test_layers_that_overlap_in_time_are_counted_as_ambiguous():
    modules, step = _layered()
    step[2] = step[2]._replace(start_ns=1005, duration_ns=300)  # crosses the other layer: two threads
    assert kernel_spans(step, "tiny", modules)[1] > 0


class Event:
    """An event as torch's profiler gives it: everything is a method."""

    def __init__(self, name, device="CPU", correlation=0, linked=0, start=0, duration=1):
        kind = getattr(torch.autograd.DeviceType, device)
        values = {"name": name, "device_type": kind, "correlation_id": correlation, "linked_correlation_id": linked,
                  "start_ns": start, "duration_ns": duration, "device_resource_id": 7}  # fmt: skip
        for key, value in values.items():
            setattr(self, key, lambda value=value: value)


def test_runtime_calls_become_the_launches_of_their_kernels():
    found = activities([
        Event("gnomon::step", correlation=1, start=1000, duration=99),
        Event("aten::mm", correlation=2, start=1001, duration=50),
        Event("cudaLaunchKernel", correlation=77, linked=2, start=1010, duration=4),
        Event("sgemm", "CUDA", correlation=77, linked=2, start=1030, duration=20),
        Event("gnomon::step", "CUDA", start=1030, duration=20),
    ])  # fmt: skip
    assert [a.name for a in found] == ["gnomon::step", "aten::mm", "sgemm"]
    assert found[-1] == Activity("sgemm", True, 2, 1030, 20, (1010, 4), 7)


def test_a_real_profile_puts_operators_into_the_layers_that_called_them():
    """The profiler's host side, which a machine without a GPU has, too."""
    program = build(tasks.bert(layers=1))
    tracer = KernelTracer(program)
    handles = [h for i, (_, module) in enumerate(tracer.modules) for h in kernel._mark(i, module)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        tracer.step()
    for handle in handles:
        handle.remove()
    spans, _ = kernel_spans(activities(profile.profiler.kineto_results.events()), "tiny", tracer.modules)
    assert sum(span.level == "layer" for span in spans) >= len(tracer.modules) - 2
    queries = [s for s in spans if s.name == "aten::addmm" and s.attributes["module"].endswith("attention.self.query")]
    assert len(queries) == 1


def test_on_a_cpu_the_level_is_what_the_libraries_tell():
    program = build(tasks.linear())
    assert kernel.why_not(program) == library.why_not(program)
    assert isinstance(kernel.tracer(program, Clock(), None), library.LibraryTracer)


@pytest.mark.gpu
def test_every_kernel_of_a_real_step_has_its_operator():
    program = build(tasks.linear(device="cuda:0"), device="cuda:0")
    tracer = kernel.tracer(program, Clock(), torch.cuda.synchronize)
    with tracer.scope():
        tracer.step()
        torch.cuda.synchronize()
    spans = kernel.summary(tracer, [0], 0, Clock(), "tiny").spans
    kernels = [span for span in spans if span.level == "kernel"]
    assert kernels
    assert all(spans[one.parent].level == "operator" for one in kernels)
