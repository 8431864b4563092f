"""Chrome's Trace Event Format, as torch.profiler, Perfetto's writers and Gnomon itself use it.

Read: complete events (X), pairs (B, E), names (M), and flows (s, f) between a launch on the host and its kernel. Levels
come from the category: torch's `user_annotation` and modules are layers, `cpu_op` operators, what ran on a GPU kernels.
Host spans get their parents from times, thread by thread; a kernel gets the operator that launched it, by correlation
id. A trace that Gnomon wrote says all of this itself, so what comes back are the spans that were written.
"""

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeGuard

from gnomon.core.errors import DamagedData
from gnomon.measure.record import SPAN_LEVELS, Span, Trace
from gnomon.measure.traces.damage import Damage
from gnomon.measure.traces.nesting import TOLERANCE_NS, Timed, adopt, refuse_circles, thread_parents
from gnomon.measure.traces.source import plain

_DEPTH: dict[str, int] = {level: depth for depth, level in enumerate(SPAN_LEVELS)}
_APPLICATION, _MODEL, _LAYER, _OPERATOR, _KERNEL = range(5)
_RUNTIME = {"cuda_runtime", "cuda_driver", "hip_runtime", "xpu_runtime", "privateuse1_runtime", "runtime"}
_ON_DEVICE = {"kernel", "concurrent_kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset"}
# what repeats other events (a step again on the GPU's row) or is the profiler's own work
_LEFT_OUT = {"gpu_user_annotation", "trace", "overhead", "fwdbwd", "ac2g", "async_cpu_to_gpu", "cpu_instant_event"}
_MODULE = "nn.Module: "
_RENAMED = {"Input Dims": "shapes", "Input type": "dtypes", "External id": "external_id"}
_COARSE = 2**42  # microseconds; beyond that, a float steps by more than a nanosecond


class NotExact(Exception):
    """Times are too large for floats: the text must be parsed again with exact numbers."""


def read_chrome(events: list[Any], about: Mapping[str, Any], name: str, damage: Damage) -> Trace:
    """The spans of the events of one file. about: what stands beside `traceEvents`.

    Raises DamagedData for what `damage` does not let pass, NotExact when floats cannot hold the times.
    """
    complete = _paired(events, damage)
    other = about.get("otherData")
    if isinstance(other, Mapping) and other.get("writer") == "gnomon" and all(map(_is_ours, complete)):
        return _ours(complete, other, name, damage)
    reader = _Reader(complete, events, damage)
    origin = min(reader.timed.start, default=0)
    metadata = {str(key): plain(value) for key, value in about.items() if key != "traceEvents"}
    base = about.get("baseTimeNanoseconds")
    epoch = origin + (base if isinstance(base, int) and not isinstance(base, bool) else 0)
    if 10**18 <= epoch < 4 * 10**18:  # from 2001 to 2096: the clock counts from 1970
        metadata["started_at"] = f"{datetime.fromtimestamp(epoch / 1e9, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    spans = reader.spans(origin)
    return Trace(name, "chrome", spans, metadata, damage.warnings())


def _paired(events: list[Any], damage: Damage) -> list[dict[str, Any]]:
    """The events that have a duration, B and E made one. Raises for broken ones unless lenient."""
    complete: list[dict[str, Any]] = []
    begun: dict[tuple[Any, Any], list[dict[str, Any]]] = defaultdict(list)
    others: Counter[str] = Counter()
    for number, event in enumerate(events):
        kind = event.get("ph") if type(event) is dict else None
        if kind == "X":
            complete.append(event)
        elif kind == "B":
            begun[_thread(event)].append(event)
        elif kind == "E":
            stack = begun[_thread(event)]
            if not stack or event.get("name", stack[-1].get("name")) != stack[-1].get("name"):
                where = f"event {number} ({event.get('name', 'no name')!r} at {event.get('ts')!r})"
                damage.found("truncated-trace", "ends (E) without a beginning", where)
                continue
            begin = stack.pop()
            start, end = begin.get("ts"), event.get("ts")
            if not (_is_number(start) and _is_number(end)):
                damage.found("bad-input", "times that are no numbers", f"event {number}: {start!r} to {end!r}")
                continue
            arguments = {**_arguments(begin), **_arguments(event)}
            complete.append({**begin, "ph": "X", "dur": Decimal(end) - Decimal(start), "args": arguments})
        elif kind is None or type(kind) is not str:
            damage.found("damaged-data", "entries that are no events", f"entry {number}: {str(event)[:60]!r}")
        elif kind not in "Mstf":
            others[kind] += 1
    for stack in begun.values():
        for event in stack:
            where = f"{event.get('name')!r} at {event.get('ts')!r}"
            damage.found("truncated-trace", "beginnings (B) without an end", where)
    if others:
        kinds = ", ".join(f"{count} of kind {kind!r}" for kind, count in others.most_common())
        damage.note(f"left out events that are no spans: {kinds}")
    return complete


class _Reader:
    """Events of any writer as columns: names, levels, times in nanoseconds, threads, attributes; then parents."""

    def __init__(self, complete: list[dict[str, Any]], events: list[Any], damage: Damage) -> None:
        self._damage = damage
        self.timed = Timed([], [], [], [])
        self._attributes: list[dict[str, Any]] = []
        self._threads: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        self._streams: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        self._launches: dict[Any, int] = {}
        self._externals: dict[Any, int] = {}
        self._is_runtime: set[int] = set()
        left_out: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for event in complete:
            self._add(event, left_out, unknown)
        if left_out:
            damage.note(f"left out events that repeat others or are the profiler's own: {_listed(left_out)}")
        if unknown:
            damage.note(f"put at the application level, for want of a known category: {_listed(unknown)}")
        self.parent: list[int | None] = [None] * len(self.timed.name)
        for thread in self._threads.values():
            thread_parents(self.timed, thread, self.parent, damage)
        self._adopt_threads()
        self._attach_kernels(_flows(events))

    def _add(self, event: dict[str, Any], left_out: Counter[str], unknown: Counter[str]) -> None:
        name = event.get("name")
        name = name if type(name) is str else "(no name)"
        category = str(event.get("cat", "")).lower()
        depth = _depth(name, category)
        if depth is None:
            left_out[category] += 1
            return
        start, length = event.get("ts"), event.get("dur")
        if not (_is_number(start) and _is_number(length)):
            self._damage.found("bad-input", "times that are no numbers", f"{name[:60]!r}: ts {start!r}, dur {length!r}")
            return
        start_ns, length_ns = _ns(start), _ns(length)
        if length_ns < 0:
            where = f"{name[:60]!r} at {start} us lasts {length} us"
            self._damage.found("clock-backwards", "spans that end before they begin", where)
            return
        i = len(self.timed.name)
        attributes = _attributes(event, depth, category)
        if depth < 0:  # no category that we know
            unknown[category or "(none)"] += 1
            depth = _APPLICATION
        if name.startswith(_MODULE):
            name = name.removeprefix(_MODULE)
            attributes["type"] = name.rpartition("_")[0] or name
        self.timed.name.append(name)
        self.timed.depth.append(depth)
        self.timed.start.append(start_ns)
        self.timed.end.append(start_ns + length_ns)
        self._attributes.append(attributes)
        (self._streams if depth == _KERNEL else self._threads)[_thread(event)].append(i)
        correlation, external = attributes.get("correlation"), attributes.get("external_id")
        if category in _RUNTIME:
            self._is_runtime.add(i)
            if isinstance(correlation, int | str) and correlation != 0:
                if correlation in self._launches:
                    where = f"{correlation} of {name[:60]!r}"
                    self._damage.found("damaged-data", "correlation ids given twice", where, "the first one counts")
                else:
                    self._launches[correlation] = i
        elif category == "cpu_op" and isinstance(external, int | str):
            self._externals.setdefault(external, i)

    def _adopt_threads(self) -> None:
        """Roots of other threads of a process belong into the step or module that waits for them."""
        depth = self.timed.depth
        by_process: dict[Any, list[list[int]]] = defaultdict(list)
        for (process, _), thread in self._threads.items():
            by_process[process].append(thread)
        for threads in by_process.values():
            main = max(threads, key=lambda thread: sum(depth[i] <= _LAYER for i in thread))
            hosts = [i for i in main if depth[i] <= _LAYER]
            others = [i for thread in threads if thread is not main for i in thread]
            orphans = [i for i in others if self.parent[i] is None and depth[i] > _APPLICATION]
            if hosts and orphans:
                adopt(self.timed, orphans, hosts, self.parent)

    def _attach_kernels(self, flows: Mapping[tuple[Any, Any, int], tuple[Any, Any, int]]) -> None:
        homeless, overlapping = 0, 0
        starts: dict[tuple[Any, Any], list[int]] = {}
        for place, stream in self._streams.items():
            stream.sort(key=self.timed.start.__getitem__)
            for before, kernel in itertools.pairwise(stream):
                overlapping += self.timed.end[before] - self.timed.start[kernel] > TOLERANCE_NS
            for kernel in stream:
                attributes = self._attributes[kernel]
                launch = self._launches.get(_key(attributes.get("correlation")))
                if launch is None and flows:
                    launch = self._flow_start(flows.get((*place, self.timed.start[kernel])), starts)
                if launch is None:
                    launch = self._externals.get(_key(attributes.get("external_id")))
                above = launch
                while above is not None and above in self._is_runtime:
                    above = self.parent[above]
                is_operator = above is not None and self.timed.depth[above] == _OPERATOR
                self.parent[kernel] = above if is_operator else launch
                homeless += launch is None
        if homeless:
            self._damage.note(f"{homeless} kernels name no operator that launched them; they have no parent")
        if overlapping:
            self._damage.note(f"{overlapping} kernels begin before the one before them on their stream has ended")

    def _flow_start(self, place: tuple[Any, Any, int] | None, starts: dict[tuple[Any, Any], list[int]]) -> int | None:
        """The innermost host span at the place where a flow begins."""
        if place is None or place[:2] not in self._threads:
            return None
        thread, time = self._threads[place[:2]], place[2]  # sorted by thread_parents
        if place[:2] not in starts:
            starts[place[:2]] = [self.timed.start[i] for i in thread]
        position = bisect.bisect_right(starts[place[:2]], time)
        host = thread[position - 1] if position else None
        while host is not None and self.timed.end[host] < time:
            host = self.parent[host]
        return host

    def spans(self, origin: int) -> tuple[Span, ...]:
        """All spans in the order of their start, the outer first. origin: the nanosecond that becomes 0."""
        name, depth, start, end = self.timed
        order = sorted(range(len(name)), key=lambda i: (start[i], -end[i], depth[i], i))
        place = {i: new for new, i in enumerate(order)}
        return tuple(
            Span(
                name[i],
                SPAN_LEVELS[depth[i]],
                (start[i] - origin) * 1e-9,
                (end[i] - start[i]) * 1e-9,
                None,
                None if (above := self.parent[i]) is None else place[above],
                self._attributes[i],
            )
            for i in order
        )


def _depth(name: str, category: str) -> int | None:
    """Place of the level that a category means; None: no span of ours, -1: not known."""
    if category == "cpu_op" or category == "operator" or category in _RUNTIME:
        return _OPERATOR
    if category in _ON_DEVICE:
        return _KERNEL
    if category == "python_function":
        return _LAYER if name.startswith(_MODULE) else None
    if category == "user_annotation":
        return _MODEL if name.startswith("ProfilerStep#") or name == "gnomon::step" else _LAYER
    if category in _LEFT_OUT:
        return None
    return _DEPTH.get(category, -1)


def _attributes(event: dict[str, Any], depth: int, category: str) -> dict[str, Any]:
    attributes = {_RENAMED.get(key, key): plain(value) for key, value in _arguments(event).items()}
    if depth != _DEPTH.get(category):
        attributes["category"] = category
    if depth != _KERNEL:
        attributes["thread"] = plain(event.get("tid"))
    return attributes


def _flows(events: list[Any]) -> dict[tuple[Any, Any, int], tuple[Any, Any, int]]:
    """Where a flow ends -> where it began, both as (process, thread, nanosecond). torch draws launches as 'ac2g'."""
    begins: dict[Any, tuple[Any, Any, int]] = {}
    ends: dict[Any, tuple[Any, Any, int]] = {}
    for event in events:
        if type(event) is dict and event.get("ph") in ("s", "f") and event.get("cat") in ("ac2g", "async_cpu_to_gpu"):
            key, ts = event.get("id"), event.get("ts")
            if isinstance(key, int | str) and _is_number(ts):
                (begins if event["ph"] == "s" else ends)[key] = (*_thread(event), _ns(ts))
    return {place: begins[key] for key, place in ends.items() if key in begins}


def _is_ours(event: dict[str, Any]) -> bool:
    return isinstance(_arguments(event).get("gnomon"), dict) and event.get("cat") in _DEPTH


def _ours(complete: list[dict[str, Any]], other: Mapping[str, Any], name: str, damage: Damage) -> Trace:
    """The spans that Gnomon wrote, in their order, with the parents and times that they had."""
    if other.get("version") != 1:
        text = f"{damage.name}: wanted a trace of version 1, got {other.get('version')!r}; upgrade gnomon"
        raise DamagedData(text, outcome="unknown-version")
    by_number: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = {}
    for event in complete:
        told = _arguments(event)["gnomon"]
        key: Any = (event.get("pid"), told.get("span"))
        times = [_ns(value) if _is_number(value) else None for value in (event.get("ts"), event.get("dur"))]
        numbers: list[Any] = [*key, *times, told.get("start_ns", 0), told.get("wall_ns", 0), told.get("cpu_ns", 0)]
        if not all(type(number) is int for number in numbers) or numbers[3] < 0 or numbers[5] < 0:
            damage.found("damaged-data", "events with broken numbers", f"{str(event)[:100]}")
        elif key in by_number:
            damage.found("damaged-data", "spans given twice", f"span {key[1]} of process {key[0]}", "first one kept")
        else:
            by_number[key] = (event, {"start_ns": times[0], "wall_ns": times[1], **told})
    order = sorted(by_number)
    place = {key: index for index, key in enumerate(order)}
    parent: list[int | None] = []
    for key in order:
        above = by_number[key][1].get("parent")
        known = place.get((key[0], above)) if type(above) is int else None
        if above is not None and known is None:
            where = f"span {key[1]} names span {above!r} as parent"
            damage.found("truncated-trace", "spans whose parent is not there", where, "made a root")
        parent.append(known)
    names = [str(by_number[key][0].get("name")) for key in order]
    refuse_circles(names, parent, damage)
    spans = []
    for title, key, above in zip(names, order, parent, strict=True):
        event, told = by_number[key]
        attributes = {k: plain(value) for k, value in _arguments(event).items() if k != "gnomon"}
        cpu_s = told["cpu_ns"] * 1e-9 if "cpu_ns" in told else None
        start_s, wall_s = told["start_ns"] * 1e-9, told["wall_ns"] * 1e-9
        spans.append(Span(title, event["cat"], start_s, wall_s, cpu_s, above, attributes))
    about = {str(key): plain(value) for key, value in other.items() if key not in ("writer", "version")}
    started_at = about.get("environment", {}).get("started_at") if isinstance(about.get("environment"), dict) else None
    if isinstance(started_at, str):
        about["started_at"] = started_at
    return Trace(name, "chrome", tuple(spans), about, damage.warnings())


def _arguments(event: dict[str, Any]) -> dict[str, Any]:
    arguments = event.get("args")
    return arguments if type(arguments) is dict else {}


def _thread(event: dict[str, Any]) -> tuple[Any, Any]:
    return _key(event.get("pid")), _key(event.get("tid"))


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str | None) else str(value)


def _is_number(value: Any) -> TypeGuard[int | float | Decimal]:
    kind = type(value)
    return kind is int or kind is Decimal or (kind is float and value - value == 0)  # False for inf and NaN


def _ns(value: int | float | Decimal) -> int:
    if type(value) is float and abs(value) >= _COARSE:
        raise NotExact
    return value * 1000 if type(value) is int else round(value * 1000)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of category {category!r}" for category, count in counts.most_common(8))
