"""Break-even tables of this CPU: sparse and int8 products timed interleaved with the dense ones, outputs checked."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnomon.core.errors import CheckFailed, NotRunnable
from gnomon.core.stats import percentile
from gnomon.devices.breakeven import BreakEven, Kernel, Kind
from gnomon.measure.clock import Clock
from gnomon.measure.timing import Candidate, time_interleaved, warm_up

SHAPES = ((1, 512, 512), (32, 512, 512), (256, 512, 512), (1, 2048, 512), (32, 2048, 512), (256, 2048, 512),
          (1, 2048, 2048), (32, 2048, 2048))  # fmt: skip
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
_ROUNDS = 15


class _Product(NamedTuple):
    m: int
    n: int
    k: int
    level: float
    dense: Callable[[], Tensor]
    other: Callable[[], Tensor]
    tolerance: float  # largest error of an output over the largest output


def measure_break_even(
    kind: Kind,
    device: str,
    *,
    budget_s: float = 60.0,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> BreakEven:
    """Time linear layers of this CPU, dense against sparse (CSR, unstructured) or int8 (dynamic), in CPU time.

    device: the name under which forecasts know this machine. budget_s: time for all of them, shared evenly; each is
    timed in three rounds at least. Raises CheckFailed when outputs differ, NotRunnable without int8 kernels.
    """
    clock = clock or Clock()
    products = list(_sparse(shapes) if kind == "sparsity" else _int8(shapes))
    share_s = budget_s / len(products)
    kernels = []
    for one in products:
        progress(f"{one.m} x {one.n} x {one.k}, {kind} {one.level:g}")
        expected, got = one.dense(), one.other()
        error = ((expected - got).abs().max() / expected.abs().max()).item()
        if not error <= one.tolerance:
            raise CheckFailed(
                f"{kind} {one.level:g} of {one.n} x {one.k}: outputs differ by {error:.2g} of the largest"
            )
        repeats = [warm_up(step, clock, share_s / 4).repeat for step in (one.dense, one.other)]
        candidates = [Candidate("dense", one.dense, repeats[0]), Candidate(kind, one.other, repeats[1])]
        dense, other = time_interleaved(candidates, clock, _ROUNDS, share_s / 2)
        ratios = [b.cpu_ns / a.cpu_ns for a, b in zip(dense, other, strict=True)]
        low, middle, high = (percentile(ratios, q) for q in (0.05, 0.5, 0.95))
        kernels.append(Kernel(one.m, one.n, one.k, one.level, middle, low, high))
    library = "torch.sparse CSR" if kind == "sparsity" else f"dynamic int8, {torch.backends.quantized.engine}"
    return BreakEven(
        device=device,
        kind=kind,
        library=f"{library}, torch {torch.__version__}",
        threads=torch.get_num_threads(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=tuple(kernels),
    )


def _sparse(shapes: Sequence[tuple[int, int, int]]) -> Iterator[_Product]:
    generator = torch.Generator().manual_seed(0)
    for m, n, k in shapes:
        x = torch.randn(m, k, generator=generator)
        full, draw = torch.randn(n, k, generator=generator), torch.rand(n, k, generator=generator)
        for sparsity in SPARSITIES:
            weight = full * (draw >= sparsity)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                rows = weight.to_sparse_csr()
            yield _Product(
                m, n, k, sparsity,
                lambda x=x, weight=weight: functional.linear(x, weight),  # type: ignore[misc]
                lambda x=x, rows=rows: torch.mm(rows, x.t()).t(),  # type: ignore[misc]
                tolerance=1e-3,
            )  # fmt: skip


def _int8(shapes: Sequence[tuple[int, int, int]]) -> Iterator[_Product]:
    if torch.backends.quantized.engine in ("none", ""):
        raise NotRunnable("this build of torch has no int8 kernels (torch.backends.quantized.engine is 'none')")
    torch.manual_seed(0)
    for m, n, k in shapes:
        x, layer = torch.randn(m, k), nn.Linear(k, n).eval().requires_grad_(False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao announces its successor, which has no kernels for CPUs
            quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, torch.qint8)
        yield _Product(
            m, n, k, 8,
            lambda x=x, layer=layer: layer(x),  # type: ignore[misc]
            lambda x=x, quantized=quantized: quantized(x),  # type: ignore[misc]
            tolerance=0.1,
        )  # fmt: skip
