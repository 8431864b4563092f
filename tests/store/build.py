"""Small records for the store to keep, and how to start another process that uses it."""

import sys

from gnomon.core.stats import Interval
from gnomon.forecast.record import Estimate, Forecast, OpForecast
from gnomon.measure.record import Environment, Measurement


def forecast(device="H100-SXM", ops=3, task="embed"):
    one = Estimate(0.25, 0.125, 0.5)
    return Forecast(
        task=task, graph_digest="sha256:1", device=device, predictor="physics", dtype="float32", mode="inference",
        batch=8, dims={"B": 8}, total=one, bound="memory", bound_shares={"memory": 1.0},
        ops=tuple(OpForecast(i, "aten.mm", f"layer.{i}", "forward", "matmul", one, "memory") for i in range(ops)),
        flop=1e9, mfu=0.1, peak_memory_bytes=1e9, memory_bytes=1e10, fits=True, unknown_ops={}, warnings=("naïve",),
    )  # fmt: skip


def measurement(task="embed"):
    return Measurement(
        task=task, task_digest="sha256:2", variant="eager", mode="inference", batch=8, dims={"B": 8},
        latency={"p50": Interval(0.5, 0.4, 0.6, 0.95, 3)}, cpu_latency={}, throughput_per_s=16.0, levels=(), layers=(),
        operators=(), operators_cover=None, rest="", spans=(), output_digest="sha256:3",
        environment=Environment({}, "3.11", {}, 1, "default", "cpu", "2026-01-01T00:00:00Z"),
    )  # fmt: skip


def python(code, *arguments):
    """The command of a fresh Python process that runs `code` with `arguments` in sys.argv[1:]."""
    return [sys.executable, "-c", code, *map(str, arguments)]
