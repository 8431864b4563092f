from rich.console import Console

from gnomon.measure.record import Span
from gnomon.report.kernels import print_kernels


def _printed(spans):
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        print_kernels(console, spans)
    return [line.split() for line in capture.get().splitlines()]


def test_calls_of_one_name_are_one_row_and_the_longest_comes_first():
    model = Span("step", "model", 0.0, 0.1, None, None)
    calls = [Span("mkl::sgemm", "kernel", 0.0, 0.01, None, 0, {"library": "MKL"})] * 3
    rows = _printed([model, Span("onednn::conv[1]", "kernel", 0.0, 0.02, None, 0, {"library": "oneDNN"}), *calls])
    assert rows[-3] == ["mkl::sgemm", "MKL", "3", "30", "ms", "30.0", "%"]
    assert rows[-2] == ["onednn::conv[1]", "oneDNN", "1", "20", "ms", "20.0", "%"]


def test_kernels_of_a_device_are_told_from_those_of_libraries_and_none_print_nothing():
    assert _printed([Span("gemm", "kernel", 0.0, 0.02, None, None, {"device": True})])[-2][:3] == [
        "gemm",
        "device",
        "1",
    ]
    assert _printed([Span("step", "model", 0.0, 0.1, None, None)]) == []
