"""The kernel level on a CPU: calls of oneDNN and MKL inside each operator, told by the libraries' own verbose modes.

The libraries print one line per call, with the time that they measured themselves. Their standard output goes to a file
while a step is traced, and the length of that file is read when an operator has ended: the lines in between are the
calls of that operator, so nothing is guessed from times. When within its operator a call began is not told (oneDNN can,
MKL cannot); calls are laid one after the other from the operator's start. ATen's own loops print nothing: an operator
without a library call is one of them.
"""

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from gnomon.measure.clock import Clock
from gnomon.measure.levels import operator
from gnomon.measure.levels.trace import Summary, typical_times
from gnomon.measure.record import Span
from gnomon.measure.spans import parents
from gnomon.workload.program import Program

_STDOUT = 1
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MKL = re.compile(r"MKL_VERBOSE (\w+)\((.*)\) ([\d.]+)(s|ms|us|ns) (.*)")
_THREADS = re.compile(r"NThr:(\d+)")
_POINTER = re.compile(r"(?:\w+:)?0x[0-9a-f]+|\(nil\)")


def why_not(program: Program) -> str | None:
    """The reason why no library calls can be told here, or None."""
    if not (torch.backends.mkldnn.is_available() or torch.backends.mkl.is_available()):
        return "this torch was built without oneDNN and MKL, the CPU libraries that tell what they do"
    return operator.why_not(program)


def tracer(program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> "LibraryTracer":
    """The tracer of this level."""
    return LibraryTracer(program, clock, synchronize)


def summary(tracer: "LibraryTracer", kept: Sequence[int], median: int, clock: Clock, name: str) -> Summary:
    """Spans of the call `median` down to library calls; `name` is the step's."""
    spans, ambiguous, outside = _step_spans(tracer, median, name)
    remarks = []
    if outside:
        remarks.append(f"{outside} library calls of a step lie outside of every operator and are in no layer")
    if not any(span.level == "kernel" for span in spans):
        remarks.append("no operator of this task calls oneDNN or MKL: all of them are ATen's own loops")
    typical = typical_times([_step_spans(tracer, i, name)[0] for i in kept], spans)
    cost = operator.bracket_cost(clock)
    return Summary((), (), tuple(spans), ambiguous, cost, remarks=tuple(remarks), typical=typical)


def _step_spans(tracer: "LibraryTracer", call: int, name: str) -> tuple[list[Span], int, int]:
    """The spans of one call, how many have no unique parent, and how many library calls have no operator."""
    spans = operator.operator_spans(tracer.calls[call], tracer.modules, name)
    tree = parents(spans)
    spans = [replace(span, parent=parent) for span, parent in zip(spans, tree.parent, strict=True)]
    calls, outside = library_spans(spans, tracer.told[call])
    return [*spans, *calls], len(tree.ambiguous), outside


class Told(NamedTuple):
    """What the libraries printed in one step. ends: length of the text in bytes when each operator had ended."""

    text: bytes
    ends: Sequence[int]


class LibraryTracer(operator.OperatorTracer):
    """Records modules and operators, and what oneDNN and MKL say meanwhile."""

    def __init__(self, program: Program, clock: Clock, synchronize: Callable[[], None] | None) -> None:
        super().__init__(program, clock, synchronize)
        self.told: list[Told] = []

    @contextmanager
    def scope(self, after: Callable[[], None] | None = None) -> Iterator[None]:
        """The libraries speak inside, into a file. What the model prints to standard output is passed on afterwards."""
        ends: list[int] = []
        libc = ctypes.CDLL(None)
        sys.stdout.flush()
        libc.fflush(None)
        with tempfile.TemporaryFile() as sink:

            def mark() -> None:
                libc.fflush(None)  # the libraries print through C's buffers
                ends.append(os.lseek(sink.fileno(), 0, os.SEEK_CUR))
                if after is not None:
                    after()

            kept = os.dup(_STDOUT)
            os.dup2(sink.fileno(), _STDOUT)
            try:
                with _speaking(), super().scope(mark):
                    yield
            finally:
                sys.stdout.flush()
                libc.fflush(None)
                os.dup2(kept, _STDOUT)
                os.close(kept)
            sink.seek(0)
            text = sink.read()
        self.told.append(Told(text, ends))
        _pass_on(text)


@contextmanager
def _speaking() -> Iterator[None]:
    """Both libraries' verbose modes are on inside, where torch was built with them."""
    onednn, mkl = torch.backends.mkldnn, torch.backends.mkl
    if onednn.is_available():
        torch._C._verbose.mkldnn_set_verbose(onednn.VERBOSE_ON)
    if mkl.is_available():
        torch._C._verbose.mkl_set_verbose(mkl.VERBOSE_ON)
    try:
        yield
    finally:
        if onednn.is_available():
            torch._C._verbose.mkldnn_set_verbose(onednn.VERBOSE_OFF)
        if mkl.is_available():
            torch._C._verbose.mkl_set_verbose(mkl.VERBOSE_OFF)


def _pass_on(text: bytes) -> None:
    rest = [line for line in text.splitlines(keepends=True) if not line.startswith((b"onednn_verbose", b"MKL_VERBOSE"))]
    if rest:
        os.write(_STDOUT, b"".join(rest))


class LibraryCall(NamedTuple):
    """One call as the library told it. details: implementation, shapes and so on in the library's own words."""

    name: str
    library: str
    wall_s: float
    details: dict[str, Any]


def library_spans(spans: Sequence[Span], told: Told) -> tuple[list[Span], int]:
    """One span per library call, its operator as parent, and how many calls came after the last operator had ended.

    spans: of the step, with operators in the order in which they ended. A call is cut at the end of its operator: the
    libraries' clocks are their own.
    """
    found: list[Span] = []
    start = 0
    operators = [i for i, span in enumerate(spans) if span.level == "operator"]
    for i, end in zip(operators, told.ends, strict=True):
        above = spans[i]
        at, limit = above.start_s, above.start_s + above.wall_s
        for call in library_calls(told.text[start:end].decode(errors="replace")):
            wall_s = min(call.wall_s, limit - at)
            attributes = {"library": call.library, "told_s": call.wall_s, **call.details}
            attributes["module"] = above.attributes.get("module", "")
            found.append(Span(call.name, "kernel", at, wall_s, None, i, attributes))
            at += wall_s
        start = end
    return found, sum(1 for _ in library_calls(told.text[start:].decode(errors="replace")))


def library_calls(text: str) -> Iterator[LibraryCall]:
    """The calls in what oneDNN and MKL printed; other lines are passed over."""
    for line in text.splitlines():
        if line.startswith("onednn_verbose,"):
            call = _onednn(line.split(","))
        elif line.startswith("MKL_VERBOSE "):
            call = _mkl(line)
        else:
            continue
        if call is not None:
            yield call


def _onednn(parts: Sequence[str]) -> LibraryCall | None:
    """onednn_verbose,v1[,stamp],primitive,exec,cpu,<primitive>,<implementation>,...,<problem>,<milliseconds>."""
    if "exec" not in parts[:5]:  # what is created, or found in its cache, takes no part in a call
        return None
    after = parts[parts.index("exec") + 1 :]
    try:
        milliseconds = float(after[-1]) if len(after) >= 5 else None
    except ValueError:
        milliseconds = None
    if milliseconds is None:  # a line that was cut off
        return None
    details = {"implementation": after[2], "problem": after[-2]}
    return LibraryCall(f"onednn::{after[1]}", "oneDNN", milliseconds * 1e-3, details)


def _mkl(line: str) -> LibraryCall | None:
    """MKL_VERBOSE SGEMM(T,N,256,32,256,0x...,...) 131.22us CNR:OFF Dyn:0 FastMM:1 TID:0  NThr:1"""
    match = _MKL.match(line)
    if match is None:  # its first line says which MKL it is
        return None
    name, arguments, number, unit, rest = match.groups()
    plain = [argument for argument in arguments.split(",") if not _POINTER.fullmatch(argument)]
    details: dict[str, Any] = {"problem": ",".join(plain)}
    threads = _THREADS.search(rest)
    if threads is not None:
        details["threads"] = int(threads[1])
    return LibraryCall(f"mkl::{name.lower()}", "MKL", float(number) * _UNITS[unit], details)
