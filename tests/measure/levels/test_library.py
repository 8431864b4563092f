import math
import os

import pytest
import torch

from gnomon.measure.clock import Clock
from gnomon.measure.levels import library
from gnomon.measure.levels.library import Told, library_calls, library_spans
from gnomon.measure.record import Span
from gnomon.workload.program import build
from tests.measure import tasks

# printed by oneDNN 3.12 and MKL 2024.2 on an x86-64 machine
ONEDNN = (
    "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,src:f32:a:blocked:aBcd16b::f0 "
    "wei:f32:a:blocked:ABcd16b16a::f0,attr-scratchpad:user,alg:convolution_direct,mb8_ic64oc64_ih56oh54kh3,17.2229\n"
)
MKL = (
    "MKL_VERBOSE SGEMM(T,N,256,32,256,0x7ffcad0e8e90,0x5624da962600,256,0x5624da9a2680,256) 131.22us CNR:OFF Dyn:0 "
    "FastMM:1 TID:0  NThr:2\n"
)
OTHER = (
    "onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel DL Boost\n"
    "onednn_verbose,v1,primitive,create:cache_hit,cpu,matmul,brg:avx512_core,undef,,,,32x256:256x256,0.01\n"
    "MKL_VERBOSE oneMKL 2024.0 Update 2 Product build 20240605 for Intel(R) 64 architecture\n"
    "loss 3.25 at step 17us\n"
)


def test_a_line_of_each_library_is_read_with_its_time_and_the_rest_is_passed_over():
    convolution, product = library_calls(OTHER + ONEDNN + OTHER + MKL)
    assert (convolution.name, convolution.library, product.name, product.library) == (
        "onednn::convolution", "oneDNN", "mkl::sgemm", "MKL",
    )  # fmt: skip
    assert math.isclose(convolution.wall_s, 17.2229e-3)
    assert math.isclose(product.wall_s, 131.22e-6)
    assert convolution.details == {"implementation": "jit:avx512_core", "problem": "mb8_ic64oc64_ih56oh54kh3"}
    assert product.details == {"problem": "T,N,256,32,256,256,256", "threads": 2}


def test_a_time_stamp_in_front_changes_nothing():
    stamped = ONEDNN.replace("v1,", "v1,1795327924550.871094,")
    assert list(library_calls(stamped)) == list(library_calls(ONEDNN))


@pytest.mark.parametrize("cut", range(1, len(ONEDNN)))
def test_a_line_that_was_cut_off_never_fails(cut):
    for call in library_calls(ONEDNN[:cut]):
        assert cut > len(ONEDNN) - 8  # the number itself was cut
        assert call.wall_s <= 18e-3


def test_a_call_belongs_to_the_operator_in_which_it_was_printed_and_ends_with_it():
    text = (ONEDNN + MKL + MKL + MKL).encode()
    first, second = len(ONEDNN), len(ONEDNN) + len(MKL)
    step = Span("step", "model", 0.0, 1.0, None, None)
    spans = [
        step,
        Span("a", "operator", 0.0, 0.02, None, 0),
        Span("b", "operator", 0.1, 0.01, None, 0),
        Span("c", "operator", 0.2, 200e-6, None, 0),
    ]
    calls, outside = library_spans(spans, Told(text, [first, first, second + len(MKL)]))
    assert [(call.name, call.parent) for call in calls] == [
        ("onednn::convolution", 1),
        ("mkl::sgemm", 3),
        ("mkl::sgemm", 3),
    ]
    assert calls[2].start_s == pytest.approx(0.2 + 131.22e-6)
    assert calls[2].wall_s == pytest.approx(200e-6 - 131.22e-6)  # cut at the operator's end
    assert calls[2].attributes["told_s"] == pytest.approx(131.22e-6)
    assert outside == 1


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs a torch with MKL")
def test_the_products_of_a_linear_layer_are_calls_of_mkl_inside_its_operator(capfd):
    program = build(tasks.linear(width=64))
    tracer = library.tracer(program, Clock(), None)
    with tracer.scope():
        tracer.step()
        os.write(1, b"from the model\n")
    found = library.summary(tracer, [0], 0, Clock(), "tiny")
    kernels = [span for span in found.spans if span.level == "kernel"]
    assert {found.spans[one.parent].name for one in kernels} == {"aten.addmm.default"}
    assert {one.attributes["library"] for one in kernels} <= {"MKL", "oneDNN"}
    assert found.remarks == ()
    assert capfd.readouterr().out == "from the model\n"


def test_operators_without_a_library_are_told():
    program = build(tasks.task(tasks.Model("relu", "1", "python", "torch.nn:ReLU", {}, (
        tasks.Tensor("input", "float32", ("B", 4)),)), {"B": 2}))  # fmt: skip
    tracer = library.tracer(program, Clock(), None)
    with tracer.scope():
        tracer.step()
    (remark,) = library.summary(tracer, [0], 0, Clock(), "tiny").remarks
    assert remark == "no operator of this task calls oneDNN or MKL: all of them are ATen's own loops"


def test_the_libraries_are_silent_again_after_a_step(capfd):
    program = build(tasks.linear(width=64))
    tracer = library.tracer(program, Clock(), None)
    with tracer.scope():
        tracer.step()
    program.step()
    assert "VERBOSE" not in capfd.readouterr().out
