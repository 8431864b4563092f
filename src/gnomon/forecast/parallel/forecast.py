"""Forecast of one step on several devices: tensor, pipeline and data parallelism, and what they wait for each other.

The graph is one replica's batch. It is divided among the devices of a tensor-parallel group, then into micro-batches,
then into stages; each stage's phases are forecast as any graph is, the schedule is simulated, and the exchange of
gradients runs on a stream of its own behind the last micro-batch.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gnomon.core.units import format_bytes
from gnomon.devices.device import Device
from gnomon.forecast.collectives import NODE_SIZE, Transfer, members_per_node, node_size, transfer_time
from gnomon.forecast.dtypes import resized
from gnomon.forecast.parallel.data import (
    Group,
    gather_ahead,
    gradient_buckets,
    parameter_buckets,
    reduce_behind,
)
from gnomon.forecast.parallel.divide import collective
from gnomon.forecast.parallel.micro import micro_batch
from gnomon.forecast.parallel.plan import Parallel
from gnomon.forecast.parallel.schedule import in_flight, simulate
from gnomon.forecast.parallel.stages import Cut, cut, stage_graph
from gnomon.forecast.parallel.tensor import tensor_parallel
from gnomon.forecast.predict import forecast
from gnomon.forecast.predictors import Predictor
from gnomon.forecast.record import Bound, Estimate, Forecast, Host, OpForecast
from gnomon.forecast.work import works
from gnomon.workload.graph import Op, OpGraph
from gnomon.workload.memory import lifetimes, peak


def forecast_parallel(
    graph: OpGraph,
    device: Device,
    parallel: Parallel,
    *,
    dtype: str | None = None,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    predictor: Predictor | None = None,
    host: Host = "eager",
) -> Forecast:
    """How long one step takes on `parallel.devices` devices; arguments as for `forecast`, which it is for one device.

    graph: the step of one replica, at the batch of one replica; the global batch is `parallel.data` times as large.
    The result's flop are those of all replicas, mfu is per device, memory the fullest device's, ops those of one
    micro-batch with its collectives. Raises UsageError for degrees that do not divide and for links that the device's
    file does not state.
    """
    options: dict[str, Any] = {"dtype": dtype, "predictor": predictor, "host": host}
    if parallel.is_single or not graph.ops:
        return forecast(graph, device, batch=batch, dims=dims, **options)
    return _Spread(graph, device, parallel, options).result(batch, dict(dims or {}))


class _Exchange(NamedTuple):
    """A bucket on its way. at: share of the phase after which it may leave, or before which it must be there."""

    at: float
    time: Estimate
    op: Op


@dataclass(slots=True)
class _Stage:
    """One stage on one micro-batch. forecasts: of each phase; 'accumulate' adds gradients to those before."""

    graph: OpGraph
    forecasts: dict[str, Forecast]
    gradients: list[_Exchange]  # in the order in which they are ready
    parameters: dict[str, list[_Exchange]]  # by phase, in the order of use
    updated: list[_Exchange]  # parameters that were updated elsewhere
    shared: list[_Exchange]  # gradients of parameters that several stages use

    def seconds(self, phase: str, case: int) -> float:
        return _pick(self.forecasts[phase].total, case) if phase in self.forecasts else 0.0


class _Run(NamedTuple):
    total_s: float
    communication_s: float
    idle_s: float


class _Spread:
    """A graph spread over devices, ready to be timed."""

    def __init__(self, graph: OpGraph, device: Device, parallel: Parallel, options: dict[str, Any]) -> None:
        self.whole, self.device, self.parallel, self.options = graph, device, parallel, options
        self.remarks: list[str] = []
        if parallel.devices > 1 and device.node_size is None:
            self.remarks.append(f"{device.name} states no node_size; nodes of {NODE_SIZE} devices are assumed")
        split = tensor_parallel(graph, parallel.tensor, members_per_node(device, parallel.tensor))
        self.remarks += split.remarks
        self.micro = micro_batch(split.graph, parallel.micro_batches)
        self.cut = self._cut()
        self.sends = [self._send(s) for s in range(parallel.pipeline - 1)]
        self.stages = [self._stage(s) for s in range(parallel.pipeline)]

    # The parts --------------------------------------------------------------------------------------------------------

    def _cut(self) -> Cut:
        count = self.parallel.pipeline
        if count == 1:
            return Cut((0,) * len(self.micro.ops), (), ())
        times = [op.time.value_s for op in forecast(self.micro, self.device, **self.options).ops]
        near = min(self._stage_neighbours(s) for s in range(count - 1))

        def send_s(count: float) -> float:
            return transfer_time(Transfer("send", count, 2, near), self.device).value_s

        return cut(self.micro, times, count, send_s)

    def _stage_neighbours(self, stage: int) -> int:
        """2 when a stage and the next lie in one node, else 1."""
        width, node = self.parallel.tensor * self.parallel.data, node_size(self.device)
        return 2 if stage * width // node == ((stage + 2) * width - 1) // node else 1

    def _send(self, stage: int) -> list[_Exchange]:
        near = self._stage_neighbours(stage)
        return [self._exchange(self.micro, "send", (t,), 2, near, 0.0) for t in self.cut.sent[stage]]

    def _stage(self, stage: int) -> _Stage:
        p = self.parallel
        members = [i for i, s in enumerate(self.cut.stage) if s == stage]
        graph = stage_graph(self.micro, members)
        forecasts: dict[str, Forecast] = {}
        graphs: dict[str, OpGraph] = {}
        for phase in ("forward", "backward", "optimizer"):
            own = [i for i in members if self.micro.ops[i].phase == phase]
            if own:
                share = 1 / p.data if phase == "optimizer" and p.zero else 1.0
                graphs[phase] = stage_graph(self.micro, own, share)
                forecasts[phase] = forecast(graphs[phase], self.device, **self.options)
        if "backward" in graphs and p.micro_batches > 1:
            forecasts["accumulate"] = forecast(_accumulation(graphs["backward"]), self.device, **self.options)
        gradients: list[_Exchange] = []
        parameters: dict[str, list[_Exchange]] = {}
        updated: list[_Exchange] = []
        if p.data > 1:
            near = members_per_node(self.device, p.data, p.tensor)
            kind = "reduce_scatter" if p.zero else "all_reduce"
            if "backward" in graphs:
                gradients = self._exchanges(graphs, forecasts, "backward", kind, near)
            if p.zero == 3:
                for phase in ("forward", "backward"):
                    if phase in graphs:
                        parameters[phase] = self._exchanges(graphs, forecasts, phase, "all_gather", near)
            elif p.zero and "backward" in graphs:
                updated = [self._exchange(graph, "all_gather", b.tensors, p.data, near, 1.0)
                           for b in parameter_buckets(graph, "forward")]  # fmt: skip
        shared: list[_Exchange] = []
        if "backward" in graphs:
            taken = {self.micro.tensors[t].storage for i in members for t in self.micro.ops[i].inputs}
            near = 1 if p.devices > node_size(self.device) else 2
            both = [t for t in self.cut.shared if self.micro.tensors[t].storage in taken]
            shared = [self._exchange(self.micro, "all_reduce", (t,), 2, near, 1.0) for t in both]
        return _Stage(graph, forecasts, gradients, parameters, updated, shared)

    def _exchanges(
        self, graphs: dict[str, OpGraph], forecasts: dict[str, Forecast], phase: str, kind: str, near: int
    ) -> list[_Exchange]:
        graph = graphs[phase]
        is_gather = kind == "all_gather"
        buckets = parameter_buckets(graph, phase) if is_gather else gradient_buckets(graph)
        done = _progress(forecasts[phase])
        return [
            self._exchange(
                graph, kind, b.tensors, self.parallel.data, near, done[b.at] if is_gather else done[b.at + 1]
            )
            for b in buckets
        ]

    def _exchange(
        self, graph: OpGraph, kind: str, tensors: Sequence[int], group: int, near: int, at: float
    ) -> _Exchange:
        """One collective with its price: in the dtype that the forecast runs the tensors in."""
        count = float(sum(graph.tensors[t].bytes for t in tensors))
        op = replace(collective(kind, count, group, near, graph.ops[0], tuple(tensors)), module="", module_type="")
        work = works(replace(graph, ops=(op,), storages=()), self.options["dtype"])[0]
        assert work.transfer is not None  # every collective has one
        return _Exchange(at, transfer_time(work.transfer, self.device), op)

    # Time -------------------------------------------------------------------------------------------------------------

    def run(self, case: int) -> _Run:
        """case: 0 expected, 1 fastest, 2 slowest, for every operator and link alike."""
        p, is_training = self.parallel, self.whole.mode == "training"
        many = p.micro_batches
        forward = [self._gathered(stage, "forward", case) for stage in self.stages]
        backward = [
            self._gathered(stage, "backward", case) + stage.seconds("accumulate", case) * (many - 1) / many
            for stage in self.stages
        ]
        sends = [math.fsum(_pick(e.time, case) for e in boundary) for boundary in self.sends]
        schedule = p.schedule if p.pipeline > 1 else "1f1b"
        line = simulate(forward, backward if is_training else None, sends, many, schedule)
        ends, hidden_not, busy = [], [], []
        for s, stage in enumerate(self.stages):
            tail = self._tail(stage, case)
            update = stage.seconds("optimizer", case)
            ends.append(line.ends[s] + tail + update)
            compute = many * (stage.seconds("forward", case) + stage.seconds("backward", case))
            compute += (many - 1) * stage.seconds("accumulate", case)
            inside = many * math.fsum(
                _pick(op.time, case) for f in stage.forecasts.values() for op in f.ops if op.category == "collective"
            )
            hidden_not.append(line.busy[s] - compute + inside + tail)
            busy.append(line.busy[s] + tail + update)
        total = max(ends)
        idle = math.fsum(total - b for b in busy) / len(busy)
        slowest = ends.index(total)
        return _Run(total, max(0.0, hidden_not[slowest]), max(0.0, idle))

    def _gathered(self, stage: _Stage, phase: str, case: int) -> float:
        """A phase of one micro-batch with what ZeRO makes each micro-batch exchange."""
        seconds = stage.seconds(phase, case)
        gradients = stage.gradients if phase == "backward" and self.parallel.zero >= 2 else []
        if phase not in stage.parameters or not stage.parameters[phase]:
            return self._behind(gradients, seconds, case)
        gathers = stage.parameters[phase]
        edges = [0.0, *(e.at for e in gathers[1:]), 1.0]
        groups = []
        for k, gather in enumerate(gathers):
            low, high = edges[k], edges[k + 1]
            is_last = k == len(gathers) - 1
            leaving = [
                e for e in gradients if low < e.at <= high or (is_last and e.at > high) or (k == 0 and e.at <= low)
            ]
            reduce_s = math.fsum(_pick(e.time, case) for e in leaving)
            groups.append(Group(_pick(gather.time, case), (high - low) * seconds, reduce_s))
        return gather_ahead(groups)

    def _behind(self, gradients: Sequence[_Exchange], seconds: float, case: int) -> float:
        return reduce_behind([e.at * seconds for e in gradients], [_pick(e.time, case) for e in gradients], seconds)

    def _tail(self, stage: _Stage, case: int) -> float:
        """What follows the last micro-batch's backward: gradients still on their way, parameters updated elsewhere."""
        seconds = stage.seconds("backward", case)
        late = self._behind(stage.gradients, seconds, case) - seconds if self.parallel.zero < 2 else 0.0
        return late + math.fsum(_pick(e.time, case) for e in (*stage.shared, *stage.updated))

    # Memory -----------------------------------------------------------------------------------------------------------

    def memory(self, stage: int) -> float:
        """Bytes at the worst moment of one stage's device."""
        # what a stage of ZeRO needs on its way (buckets, gathered parameters) is part of what it spares
        return min(self._held(stage, zero) for zero in range(self.parallel.zero + 1))

    def _held(self, stage: int, zero: int) -> float:
        p = self.parallel
        graph = resized(self.stages[stage].graph, self.options["dtype"])
        graph = replace(graph, storages=graph.storages or lifetimes(graph))
        keep = {"optimizer_state": zero >= 1, "gradient": zero >= 2, "parameter": zero >= 3}
        storages = []
        for s in graph.storages:
            size = math.ceil(s.bytes / p.data) if keep.get(s.role, False) else s.bytes
            if s.role == "gradient" and p.micro_batches > 1:
                storages.append(replace(s, bytes=size, born=-1, freed=None))
            else:
                storages.append(replace(s, bytes=size))
        extra = 0.0
        if zero >= 2:
            extra += max((b.bytes for b in gradient_buckets(graph)), default=0.0)
        if zero == 3:
            extra += sum(sorted((b.bytes for b in parameter_buckets(graph, "forward")), reverse=True)[:2])
        forward = sum(op.phase == "forward" for op in graph.ops)
        stash = sum(
            s.bytes for s in storages
            if s.role == "activation" and s.born < forward and s.freed is not None and s.freed > forward
        )  # fmt: skip
        held = 1
        if graph.mode == "training" and p.pipeline > 1:
            held = in_flight(stage, p.pipeline, p.micro_batches, p.schedule)
        return peak(replace(graph, storages=tuple(storages))).peak_bytes + extra + (held - 1) * stash

    # The record -------------------------------------------------------------------------------------------------------

    def result(self, batch: int, dims: dict[str, int]) -> Forecast:
        p, device = self.parallel, self.device
        expected, fastest, slowest = (self.run(case) for case in range(3))
        total = Estimate(expected.total_s, fastest.total_s, slowest.total_s)
        memory, capacity = max(self.memory(s) for s in range(p.pipeline)), device.memory_bytes.value
        unknown = self.whole.unknown
        warnings = [f"{n} x {name}: no cost rule; counted as memory traffic" for name, n in unknown.items()]
        if memory > capacity:
            warnings.append(f"does not fit: needs {format_bytes(memory)} of {format_bytes(capacity)}")
        most = max((f for s in self.stages for f in s.forecasts.values()), key=lambda f: f.flop)
        precision = most.dtype if most.dtype in device.peak_flop_s else "float32"
        flop, seconds = self.whole.flop * p.data, total.value_s * p.devices
        shares = self._shares(expected)
        return Forecast(
            task=self.whole.name,
            graph_digest=self.whole.digest,
            device=device.name,
            predictor=most.predictor,
            dtype=most.dtype,
            mode=self.whole.mode,
            batch=batch,
            dims=dims,
            total=total,
            bound=max(shares, key=lambda name: shares[name]) if shares else "launch",
            bound_shares={str(name): share for name, share in shares.items()},
            ops=self._ops(),
            flop=flop,
            mfu=flop / (seconds * device.peak(precision)) if seconds > 0 else 0.0,
            peak_memory_bytes=memory,
            memory_bytes=capacity,
            fits=memory <= capacity,
            unknown_ops=unknown,
            warnings=(*warnings, *self.remarks),
            host=self.options["host"],
            energy_bound_j=device.tdp_w.value * seconds if device.tdp_w is not None else None,
            parallel={
                "tensor": p.tensor, "pipeline": p.pipeline, "data": p.data, "micro_batches": p.micro_batches,
                "zero": p.zero, "schedule": p.schedule, "devices": p.devices,
                "communication_s": expected.communication_s, "idle_s": expected.idle_s,
            },
        )  # fmt: skip

    def _shares(self, run: _Run) -> dict[Bound, float]:
        """Share of the devices' busy time by what limits it; communication as far as nothing hides it."""
        seconds: dict[Bound, float] = defaultdict(float)
        for stage in self.stages:
            for phase, f in stage.forecasts.items():
                times = 1 if phase == "optimizer" else self.parallel.micro_batches
                for bound, share in f.bound_shares.items():
                    if bound != "communication":
                        seconds[bound] += times * share * f.total.value_s / len(self.stages)  # type: ignore[index]
        seconds["communication"] = run.communication_s
        whole = math.fsum(seconds.values())
        return {name: value / whole for name, value in sorted(seconds.items()) if value > 0}

    def _ops(self) -> tuple[OpForecast, ...]:
        """Operators of one micro-batch, stage by stage, then what is exchanged."""
        rows = [
            (op.name, op.module, op.phase, op.category, op.time, op.bound)
            for stage in self.stages
            for phase, f in stage.forecasts.items()
            if phase != "accumulate"
            for op in f.ops
        ]
        exchanges = [e for boundary in self.sends for e in boundary]
        for stage in self.stages:
            groups = [stage.gradients, *stage.parameters.values(), stage.updated, stage.shared]
            exchanges += [e for group in groups for e in group]
        rows += [(e.op.name, "", e.op.phase, "collective", e.time, "communication") for e in exchanges]
        return tuple(OpForecast(i, *row) for i, row in enumerate(rows))


def _pick(time: Estimate, case: int) -> float:
    return (time.value_s, time.low_s, time.high_s)[case]


def _progress(phase: Forecast) -> list[float]:
    """Share of the phase that has passed before each operator, and 1 at the end."""
    passed = list(itertools.accumulate((op.time.value_s for op in phase.ops), initial=0.0))
    whole = passed[-1]
    return [value / whole if whole else 0.0 for value in passed]


def _accumulation(graph: OpGraph) -> OpGraph:
    """Adding one micro-batch's gradients to the sum of those before."""
    ops = []
    for t in (t for bucket in gradient_buckets(graph, 0.0) for t in bucket.tensors):
        size = float(graph.tensors[t].bytes)
        ops.append(Op("aten.add_.Tensor", "", "", "backward", "elementwise", (t, t), (t,),
                      float(graph.tensors[t].elements), 2 * size, size))  # fmt: skip
    return replace(graph, ops=tuple(ops), storages=())
