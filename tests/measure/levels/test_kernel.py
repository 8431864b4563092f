import pytest
import torch

from gnomon.measure.clock import Clock
from gnomon.measure.levels import kernel
from gnomon.measure.levels.kernel import Activity, kernel_spans
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
    spans = kernel_spans(_step(), "tiny")
    by_name = {span.name: span for span in spans}
    assert spans[by_name["sgemm"].parent].name == "aten::addmm"
    assert spans[by_name["relu_kernel"].parent].name == "aten::relu"
    assert spans[by_name["aten::addmm"].parent].name == "aten::linear"
    assert spans[by_name["aten::linear"].parent].name == "tiny"
    assert by_name["tiny"].parent is None


def test_times_count_from_the_start_of_the_step():
    by_name = {span.name: span for span in kernel_spans(_step(), "tiny")}
    assert by_name["tiny"].start_s == 0.0
    assert by_name["relu_kernel"].start_s == pytest.approx(600e-9)
    assert by_name["relu_kernel"].wall_s == pytest.approx(40e-9)
    assert {span.level for span in by_name.values()} == {"model", "operator", "kernel"}


def test_every_kernel_is_kept_even_when_no_operator_claims_it():
    spans = kernel_spans([*_step(), Activity("memset", True, 99, 1100, 5)], "tiny")
    assert next(span for span in spans if span.name == "memset").parent is None


def test_a_profile_without_the_step_is_refused():
    with pytest.raises(ValueError, match="holds no 'gnomon::step'"):
        kernel_spans(_step()[1:], "tiny")


def test_on_a_cpu_the_level_says_why_it_is_not_available():
    assert "this task runs on 'cpu'" in kernel.why_not(build(tasks.linear()))


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
