"""An examination made up by hand: a transformer encoder of six layers on a machine with round peaks.

Nothing here was measured. Times are made as (roofline bound) x (a factor per operator) + (host work per operator), with
seeded noise, so that the tests know what the report has to find again.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from gnomon.core.stats import hierarchical_interval, ratio_test, t_interval
from gnomon.devices.device import Device, Quantity
from gnomon.forecast.record import Estimate, Forecast, OpForecast
from gnomon.measure.record import (
    Comparison,
    Environment,
    LayerTime,
    LevelRun,
    Measurement,
    OperatorTime,
    Session,
    Span,
    VariantTimes,
)
from gnomon.report.examination import Examination
from gnomon.sharpen.record import Change, Distance
from gnomon.spec.task import Dataset, Model, Protocol, Quality, Task, Tensor
from gnomon.workload.graph import Op, OpGraph, TensorInfo

B, L, D, HEADS, LAYERS, FFN = 8, 64, 384, 12, 6, 1536
HOST_S = 4e-6  # per operator
PEAK, VECTOR, BANDWIDTH = 80e9, 20e9, 15e9
EXCESS = {"matmul": 1.6, "normalization": 2.5, "softmax": 3.0, "elementwise": 2.2, "gather": 4.0, "attention": 2.0}
DEVICE = "AMD EPYC 7R13"
DIGEST = "sha256:" + "3f9c" * 16


@dataclass
class _Tracer:
    """Collects operators, tensors and modules in the order in which the made-up model would run them."""

    ops: list[Op] = field(default_factory=list)
    tensors: list[TensorInfo] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)

    def tensor(self, *shape, role="activation", dtype="float32"):
        self.tensors.append(TensorInfo(shape, dtype, len(self.tensors), role))
        return len(self.tensors) - 1

    def op(self, name, module, category, inputs, shape, flop, kind="Module"):
        out = self.tensor(*shape)
        read, written = sum(self.tensors[i].bytes for i in inputs), self.tensors[out].bytes
        if category == "view":
            read = written = 0
        if category == "gather":  # the rows that are looked up, not the whole table
            read = written + self.tensors[inputs[1]].bytes
        self.ops.append(
            Op(f"aten.{name}.default", module, kind, "forward", category, tuple(inputs), (out,), flop, read, written)
        )
        return out

    def linear(self, module, x, rows, wide, out):
        self.modules[module] = "Linear"
        weight, bias = self.tensor(wide, out, role="parameter"), self.tensor(out, role="parameter")
        view = self.op("view", module, "view", [x], (rows, wide), 0.0, "Linear")
        return self.op("addmm", module, "matmul", [bias, view, weight], (rows, out), 2.0 * rows * wide * out, "Linear")

    def norm(self, module, x):
        self.modules[module] = "LayerNorm"
        scale = self.tensor(D, role="parameter")
        return self.op(
            "native_layer_norm", module, "normalization", [x, scale], (B, L, D), 8.0 * B * L * D, "LayerNorm"
        )


def make_graph(layers=LAYERS, unknown=False):
    """Operators of the encoder, forward only, and the class of each module."""
    t = _Tracer()
    t.modules[""] = "SentenceEncoder"
    t.modules["embeddings"] = "Embeddings"
    table, ids = t.tensor(30522, D, role="parameter"), t.tensor(B, L, role="input", dtype="int64")
    t.modules["embeddings.word_embeddings"] = "Embedding"
    x = t.op("embedding", "embeddings.word_embeddings", "gather", [table, ids], (B, L, D), 0.0, "Embedding")
    x = t.norm("embeddings.LayerNorm", x)
    t.modules["encoder"] = "Encoder"
    for i in range(layers):
        here = f"encoder.layer.{i}"
        attention = f"{here}.attention"
        t.modules |= {here: "EncoderLayer", attention: "Attention"}
        q, k, v = (t.linear(f"{attention}.{n}", x, B * L, D, D) for n in ("query", "key", "value"))
        flop = 4.0 * B * L * L * D
        a = t.op("_scaled_dot_product_flash_attention_for_cpu", attention, "attention", [q, k, v], (B, L, D), flop)
        a = t.linear(f"{attention}.output", a, B * L, D, D)
        a = t.op("add", attention, "elementwise", [a, x], (B, L, D), 1.0 * B * L * D)
        a = t.norm(f"{attention}.LayerNorm", a)
        h = t.linear(f"{here}.intermediate", a, B * L, D, FFN)
        h = t.op("gelu", f"{here}.intermediate", "elementwise", [h], (B * L, FFN), 10.0 * B * L * FFN)
        h = t.linear(f"{here}.output", h, B * L, FFN, D)
        h = t.op("add", here, "elementwise", [h, a], (B, L, D), 1.0 * B * L * D)
        x = t.norm(f"{here}.LayerNorm", h)
    t.modules["pooling"] = "MeanPooling"
    if unknown:
        x = t.op("mystery", "pooling", "unknown", [x], (B, L, D), None)
    x = t.op("mean", "pooling", "reduction", [x], (B, D), 1.0 * B * L * D)
    t.op("div", "", "elementwise", [x], (B, D), 1.0 * B * D)
    return OpGraph("sentence-embedding", "inference", tuple(t.ops), tuple(t.tensors), 22_700_000), t.modules


def make_device():
    def q(value):
        return Quantity(value, "probe")

    return Device(
        name=DEVICE,
        vendor="AMD",
        kind="cpu",
        architecture="x86-64, AVX2",
        peak_flop_s={"float32": q(PEAK), "float64": q(PEAK / 2), "bfloat16": q(PEAK / 8)},
        vector_flop_s={"float32": q(VECTOR)},
        memory_bytes=q(8 * 2**30),
        memory_bandwidth_b_s=q(BANDWIDTH),
        units=q(2),
        cache_bytes=q(32 * 2**20),
        sources={"probe": "measured here: GEMM 1024³ and STREAM triad, best of 5, 1 thread"},
    )


def bound_s(op):
    """The roofline bound that the report should find for an operator of the made-up machine."""
    peak = PEAK if op.category in ("matmul", "attention") else VECTOR
    return max((op.flop or 0.0) / peak, op.moved_bytes / BANDWIDTH)


def op_time(op):
    return HOST_S + EXCESS.get(op.category, 1.5) * bound_s(op)


def make_sessions(rng, level_s, count=5, calls=30):
    sessions = []
    for _ in range(count):
        drift = level_s * float(np.exp(rng.normal(0, 0.012)))
        wall = drift * (1 + rng.gamma(2.0, 0.008, calls)) + (rng.random(calls) < 0.03) * level_s * 0.25
        sessions.append(
            Session(
                wall_s=tuple(float(v) for v in wall),
                cpu_s=tuple(float(v) * 0.99 for v in wall),
                page_faults=tuple(int(v) for v in rng.integers(0, 4, calls)),
                warmup_calls=12,
                is_stable=True,
                import_s=2.1 + 0.1 * float(rng.random()),
                build_s=0.42,
                first_call_s=3.1 * drift,
                peak_rss_bytes=612 * 2**20,
            )
        )
    return tuple(sessions)


def make_spans(graph, modules):
    """Nested spans of one call: modules around their operators, in order."""
    spans, stack, now = [], [], 0.0

    def close(until):
        nonlocal now
        while stack and stack[-1][0] not in until:
            path, index = stack.pop()
            now += 2e-6
            start = spans[index].start_s
            spans[index] = Span(
                path or "(model)",
                "layer",
                start,
                now - start,
                now - start,
                spans[index].parent,
                {"type": modules[path]},
            )

    for op in graph.ops:
        parts = op.module.split(".") if op.module else []
        wanted = ["", *(p for p in (".".join(parts[: i + 1]) for i in range(len(parts))) if p in modules)]
        close(wanted)
        for path in wanted:
            if path not in [p for p, _ in stack]:
                spans.append(Span(path, "layer", now, 0.0, None, stack[-1][1] if stack else None))
                stack.append((path, len(spans) - 1))
                now += 2e-6
        took = op_time(op)
        shapes = tuple(graph.shapes(op.inputs))
        spans.append(Span(op.name, "operator", now, took, took, stack[-1][1], {"module": op.module, "shapes": shapes}))
        now += took
    close([])
    return tuple(spans)


def make_measurement(graph, modules, seed=0, threads=1):
    rng = np.random.default_rng(seed)
    times = [op_time(op) for op in graph.ops]
    operators_s = math.fsum(times)
    step_s = operators_s * 1.06
    runs = {"model": make_sessions(rng, step_s), "layer": make_sessions(rng, step_s * 1.03, 3, 20)}
    runs["operator"] = make_sessions(rng, step_s * 1.21, 3, 10)
    base = np.median(np.concatenate([s.wall_s for s in runs["model"]]))
    overhead = {
        name: t_interval([float(np.median(s.wall_s)) / base - 1 for s in sessions]) for name, sessions in runs.items()
    }
    walls = [s.wall_s for s in runs["model"]]
    statistics = {
        "p50": np.median,
        "p90": lambda a: np.percentile(a, 90),
        "p99": lambda a: np.percentile(a, 99),
        "mean": np.mean,
        "trimmed_mean": lambda a: np.sort(a)[len(a) // 5 : -len(a) // 5].mean(),
    }
    latency = {name: hierarchical_interval(walls, f, resamples=200) for name, f in statistics.items()}
    layers = []
    for path, kind in modules.items():
        inside = [t for op, t in zip(graph.ops, times, strict=True) if _within(op.module, path)]
        own = [t for op, t in zip(graph.ops, times, strict=True) if op.module == path]
        shape = next((graph.tensors[op.outputs[0]].shape for op in graph.ops if op.module == path), None)
        total = math.fsum(inside)
        layers.append(LayerTime(path, kind, 1, total, total, math.fsum(own), shape))
    operators = {}
    for op, took in zip(graph.ops, times, strict=True):
        key = (op.name, op.module, tuple(graph.shapes(op.inputs)))
        calls, before = operators.get(key, (0, 0.0))
        operators[key] = (calls + 1, before + took)
    return Measurement(
        task="sentence-embedding",
        task_digest=DIGEST,
        variant="eager",
        mode="inference",
        batch=B,
        dims={"B": B, "L": L},
        latency=latency,
        cpu_latency={name: hierarchical_interval([s.cpu_s for s in runs["model"]], f, resamples=200)
                     for name, f in statistics.items()},
        throughput_per_s=B / latency["mean"].value,
        levels=tuple(LevelRun(n, s, None if n == "model" else overhead[n]) for n, s in runs.items()),
        layers=tuple(layers),
        operators=tuple(OperatorTime(*key, calls, took * 1.01, took) for key, (calls, took) in operators.items()),
        operators_cover=0.943,
        rest="module calls and Python between operators",
        spans=make_spans(graph, modules),
        output_digest="sha256:" + "07ab" * 16,
        environment=make_environment(threads),
    )  # fmt: skip


def make_environment(threads=1):
    return Environment(
        machine={"cpu": DEVICE, "cores": 2, "memory_bytes": 8 * 2**30, "isa": ["avx2", "fma"], "kernel": "Linux 6.1"},
        python="3.11.9",
        packages={"torch": "2.13.0+cpu", "numpy": "2.3.1", "transformers": "5.0.1", "onnxruntime": "1.23.0"},
        threads=threads,
        allocator="glibc malloc, mmap threshold 32 MiB",
        device="cpu",
        started_at="2026-03-14T09:26:53+00:00",
    )


def _within(path, around):
    return not around or path == around or path.startswith(around + ".")


def make_task():
    return Task(
        name="sentence-embedding",
        version="1.0.0",
        description="Embed English sentences with MiniLM-L6 and compare them by cosine",
        digest=DIGEST,
        lock={"task": DIGEST, "model": "sha256:" + "a1" * 32, "weights": "sha256:" + "b2" * 32},
        mode="inference",
        dims={"B": B, "L": L},
        dtype="float32",
        device="cpu",
        threads=1,
        seed=0,
        model=Model(
            "MiniLM-L6", "2.0", "python", "gnomon.zoo.text.sentence_embedding:SentenceEncoder", {},
            (Tensor("input_ids", "int64", ("B", "L"), "integers", 0, 30522),), weights="/models/minilm.safetensors",
        ),
        dataset=Dataset("word-similarity", "1", "gnomon.zoo.text.sentence_embedding:examples"),
        training=None,
        quality=Quality("gnomon.zoo.text.sentence_embedding:evaluate", "spearman", True, 0.005, 0.985),
        protocol=Protocol(5, 30),
    )  # fmt: skip


_CATALOGUE = {  # name: (fp32-ish peak TFLOP/s, bandwidth TB/s, memory GiB)
    "P4": (5.5, 0.19, 8), "P100": (9.3, 0.73, 16), "V100-PCIe": (14, 0.9, 16), "V100-SXM": (15.7, 0.9, 32),
    "T4": (8.1, 0.32, 16), "RTX-2080-Ti": (13.4, 0.62, 11), "A10": (31, 0.6, 24), "A100-40-SXM": (156, 1.56, 40),
    "A100-80-SXM": (156, 2.04, 80), "L4": (60, 0.3, 24), "L40S": (183, 0.86, 48), "RTX-4090": (82, 1.01, 24),
    "H100-PCIe": (378, 2.0, 80), "H100-SXM": (494, 3.35, 80), "H200": (494, 4.8, 141), "B200": (1100, 8.0, 180),
    "MI100": (46, 1.23, 32), "MI210": (45, 1.6, 64), "MI250X": (96, 3.2, 128), "MI300X": (650, 5.3, 192),
}  # fmt: skip


def make_forecasts(graph, measured_s):
    found = [_forecast(graph, DEVICE, 0.08, 0.015, 8, measured_s * 0.86, "compute")]
    for name, (tflop, tb, gib) in _CATALOGUE.items():
        device_s = sum(max((op.flop or 0) / (tflop * 4e11), op.moved_bytes / (tb * 7e11)) for op in graph.ops)
        launch_s = 5e-6 * len(graph.ops)
        bound = "launch" if launch_s > device_s else "memory" if tb < 0.4 else "compute"
        found.append(_forecast(graph, name, tflop, tb, gib, max(device_s, launch_s), bound))
    return tuple(found)


def _forecast(graph, name, tflop, tb, gib, value_s, bound):
    estimate = Estimate(value_s, value_s / 1.9, value_s * 2.3)
    shares = {"compute": 0.1, "memory": 0.2, "launch": 0.1, bound: 0.7}
    shares = {key: value / sum(shares.values()) for key, value in shares.items()}
    first = graph.ops[0]
    return Forecast(
        task="sentence-embedding", graph_digest="sha256:" + "cd" * 32, device=name, predictor="physics/1",
        dtype="float32", mode="inference", batch=B, dims={"B": B, "L": L}, total=estimate, bound=bound,
        bound_shares=shares,
        ops=(OpForecast(0, first.name, first.module, "forward", first.category, Estimate(1e-6, 5e-7, 2e-6), "memory"),),
        flop=graph.flop, mfu=graph.flop / value_s / (tflop * 1e12), peak_memory_bytes=118 * 2**20,
        memory_bytes=gib * 2**30, fits=True, unknown_ops=graph.unknown,
        warnings=("no tensor cores: float32 runs on the ordinary lanes",) if name in ("P4", "P100") else (),
    )  # fmt: skip


_RECIPES = {  # name: (speed ratio to eager, verdict, reason, spearman after, mean cosine, prepare_s)
    "onnx-int8": (2.61, "kept", "faster beyond the interval and within every bound", 0.8171, 0.9912, 6.2),
    "compile": (1.34, "kept", "faster beyond the interval and within every bound", 0.8203, 1.0, 41.0),
    "onnx-fp32": (1.29, "kept", "faster beyond the interval and within every bound", 0.8203, 1.0, 3.4),
    "int8-dynamic": (1.72, "refused", "mean cosine 0.9713 is below the bound 0.985", 0.8012, 0.9713, 0.9),
    "bf16-autocast": (0.34, "refused", "slower: 0.34 times as fast as eager", 0.8201, 0.9999, 0.0),
}


def make_changes(comparison):
    pace = {variant.name: [float(np.median(s.wall_s)) for s in variant.sessions] for variant in comparison.variants}
    changes = []
    for name, (_, verdict, reason, after, cosine, prepare) in _RECIPES.items():
        others = [other for other in ("onnx-fp32", "compile") if other != name]
        changes.append(
            Change(
                task="sentence-embedding", task_digest=DIGEST, recipe=name, options={}, baseline="eager",
                verdict=verdict, reason=reason, speedup=comparison.ratios[name],
                against={other: ratio_test(pace[other], pace[name]) for other in others},
                quality_before={"spearman": 0.8203}, quality_after={"spearman": after},
                distance=Distance(cosine, cosine - 0.01, 0.02, 256), prepare_s=prepare,
            )
        )  # fmt: skip
    changes.append(
        Change(
            task="sentence-embedding", task_digest=DIGEST, recipe="cuda-graphs", options={}, baseline="eager",
            verdict="not applicable", reason="needs an NVIDIA GPU; this task runs on cpu", speedup=None, against={},
            quality_before={"spearman": 0.8203}, quality_after={}, distance=None, prepare_s=None,
        )
    )  # fmt: skip
    return tuple(changes)


def make_comparison(step_s, seed=1):
    rng = np.random.default_rng(seed)
    speeds = {"eager": 1.0} | {name: recipe[0] for name, recipe in _RECIPES.items()}
    variants = [VariantTimes(n, make_sessions(rng, step_s / speed, 5, 20)) for n, speed in speeds.items()]
    pace = {v.name: [float(np.median(s.wall_s)) for s in v.sessions] for v in variants}
    ratios = {name: ratio_test(pace["eager"], times) for name, times in pace.items() if name != "eager"}
    return Comparison("sentence-embedding", DIGEST, "eager", "wall", tuple(variants), ratios, make_environment())


def make_examination(layers=LAYERS, seed=0, unknown=False):
    """The whole example; `unknown` adds one operator that no cost rule knows."""
    graph, modules = make_graph(layers, unknown)
    measurement = make_measurement(graph, modules, seed)
    comparison = make_comparison(measurement.latency["p50"].value)
    return Examination(
        task=make_task(),
        graph=graph,
        measurement=measurement,
        device=make_device(),
        forecasts=make_forecasts(graph, measurement.latency["p50"].value),
        comparison=comparison,
        changes=make_changes(comparison),
        command="gnomon examine sentence-embedding --batch 8 --seqlen 64",
        run_id="20260314-092653-3f9c",
        gnomon_version="0.1.0",
        memory={"parameters": 90.8e6, "activations": 6.3e6, "inputs": 4096.0},
    )
