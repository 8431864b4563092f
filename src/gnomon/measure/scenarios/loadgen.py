"""MLCommons' own LoadGen: run a system under it, and read its logs as a recording. The reference for ours.

Needs the package mlcommons-loadgen; reading logs does not. LoadGen's trace is no JSON (it doubles quotes), so events
are read line by line.
"""

import importlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.core.errors import DamagedData, NotRunnable
from gnomon.measure.scenarios.recording import Recording
from gnomon.measure.scenarios.run import Query, System
from gnomon.measure.scenarios.verdict import offline_samples
from gnomon.spec.task import Scenario

_NAMES = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
_SAMPLE = re.compile(
    r'"name":"Sample".*?"ph":"b".*?"ts":(-?[\d.]+),"args":\{"sample_seq":(\d+),"query_seq":(\d+),"sample_idx":\d+,'
    r'"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)'
)
_START = re.compile(r'"name":"SampleLoop".*?"ts":(-?[\d.]+)')


@dataclass(frozen=True, slots=True)
class LoadGenLogs:
    """recording: what LoadGen saw, its start taken from the first turn of its loop. detail: key -> value of its log."""

    recording: Recording
    detail: Mapping[str, Any]

    @property
    def is_valid(self) -> bool:
        """LoadGen's verdict."""
        return bool(self.detail["result_validity"] == "VALID")


def run_loadgen(scenario: Scenario, system: System, samples: int, folder: Path) -> LoadGenLogs:
    """Run `system` under LoadGen, its logs in `folder`. Sampling seeds are LoadGen's, arrivals' seed is the scenario's.

    Raises NotRunnable without mlcommons-loadgen, what the system reported as failed, DamagedData for unreadable logs.
    """
    try:
        lg = importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise NotRunnable("LoadGen needs the package mlcommons-loadgen; install gnomon[dev]") from error
    report = _Report(lg)

    def issue(query_samples: list[Any]) -> None:
        query = report.opened(query_samples)
        try:
            system.issue(query, report)
        except Exception as error:
            report.failed(query.id, error)

    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(samples, samples, lambda indices: None, lambda indices: None)
    try:
        lg.StartTestWithLogSettings(sut, library, _settings(lg, scenario, samples), _log_settings(lg, folder), "")
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
    if report.error is not None:
        raise report.error
    return read_logs(folder)


def read_logs(folder: Path) -> LoadGenLogs:
    """The logs that LoadGen left in `folder`, its trace among them. Raises DamagedData when they are not whole."""
    try:
        detail = _detail((folder / "mlperf_log_detail.txt").read_text())
        trace = (folder / "mlperf_log_trace.json").read_text()
    except (OSError, ValueError) as error:
        raise DamagedData(f"{folder}: LoadGen's logs cannot be read: {error}") from error
    rows = [(_ns(m[1]), *map(int, m.groups()[1:])) for m in _SAMPLE.finditer(trace)]
    start = _START.search(trace)
    if not rows or "result_validity" not in detail or start is None:
        raise DamagedData(
            f"{folder}: LoadGen's logs hold no trace of samples or no result. Was its trace enabled, did the run end?"
        )
    table = np.array(sorted(rows, key=lambda row: row[1]), dtype=np.int64)
    due, _, queries, issue_delay, latency = table.T
    _, first = np.unique(queries, return_index=True)
    completed = np.full(len(first), np.iinfo(np.int64).min)
    np.maximum.at(completed, np.searchsorted(queries[first], queries), due + latency)
    # server and offline count from the first due time; the streams' start is a little before their first query
    begin = min(_ns(start[1]), int(due.min())) if detail["effective_scenario"].endswith("Stream") else int(due.min())
    scheduled = due[first] - begin
    return LoadGenLogs(Recording(scheduled, scheduled + issue_delay[first], completed - begin, latency), detail)


class _Report:
    """Translates our reports into LoadGen's responses, which name samples instead of queries."""

    def __init__(self, lg: Any) -> None:
        self._lg, self._ids, self._open = lg, itertools.count(), dict[int, list[int]]()
        self.error: BaseException | None = None

    def opened(self, query_samples: list[Any]) -> Query:
        query = Query(next(self._ids), tuple(sample.index for sample in query_samples))
        self._open[query.id] = [sample.id for sample in query_samples]
        return query

    def done(self, query_id: int, samples: int | None = None) -> None:
        left = self._open.pop(query_id)
        count = len(left) if samples is None else samples
        if count < len(left):
            self._open[query_id] = left[count:]
        self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(one, 0, 0) for one in left[:count]])

    def failed(self, query_id: int, error: BaseException) -> None:
        self.error = self.error or error
        self.done(query_id)  # LoadGen cannot be stopped, only brought to its end


def _settings(lg: Any, scenario: Scenario, samples: int) -> Any:
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    settings.scenario = getattr(lg.TestScenario, _NAMES[scenario.name])
    settings.min_duration_ms = round(scenario.min_duration_s * 1e3)
    settings.max_duration_ms = round((scenario.max_duration_s or 0) * 1e3)
    settings.min_query_count, settings.max_query_count = scenario.min_queries, scenario.max_queries or 0
    settings.schedule_rng_seed = scenario.seed
    if scenario.name == "single-stream":
        settings.single_stream_target_latency_percentile = scenario.bound_percentile
        settings.single_stream_expected_latency_ns = 10_000  # it makes its queries beforehand; this makes enough
    elif scenario.name == "multi-stream":
        settings.multi_stream_target_latency_percentile = scenario.bound_percentile
        settings.multi_stream_samples_per_query = scenario.query_samples
        settings.multi_stream_expected_latency_ns = 100_000
    elif scenario.name == "server":
        settings.server_target_latency_percentile = scenario.bound_percentile
        settings.server_target_qps = scenario.target_qps
        settings.server_target_latency_ns = round((scenario.latency_bound_s or 0) * 1e9)
    else:
        settings.offline_expected_qps = scenario.target_qps or 1.0
        settings.min_query_count = offline_samples(scenario, samples)
    return settings


def _log_settings(lg: Any, folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    settings = lg.LogSettings()
    settings.log_output, settings.enable_trace = output, True
    return settings


def _detail(text: str) -> dict[str, Any]:
    entries = (json.loads(line.partition(" ")[2]) for line in text.splitlines() if line.startswith(":::MLLOG "))
    return {entry["key"]: entry["value"] for entry in entries}


def _ns(microseconds: str) -> int:
    whole, _, part = microseconds.partition(".")
    return int(whole + part.ljust(3, "0")[:3])
