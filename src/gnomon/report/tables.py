"""The records of a run as flat tables: Parquet or CSV, one file per table in a new folder.

Every row carries `run` and `position`, the result that it is from. Times are seconds, sizes bytes; units stand in the
metadata of the Parquet fields and in `columns.csv`. What has no flat form (shapes, attributes) is JSON text.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gnomon.core.errors import NotRunnable, UsageError, outcome_of
from gnomon.core.records import to_json
from gnomon.core.stats import Interval
from gnomon.forecast.record import Forecast
from gnomon.measure.record import Measurement, Trace

Kind = Literal["text", "whole", "number", "truth"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """rows: one value per column; None where it is not known."""

    name: str
    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]


def _columns(text: str) -> tuple[Column, ...]:
    """'name:kind:unit name:kind ...', behind the columns that every table has."""
    parts = [part.split(":") for part in f"run:text position:whole {text}".split()]
    return tuple(Column(part[0], part[1], part[2] if len(part) > 2 else "") for part in parts)  # type: ignore[arg-type]


_INTERVAL = "value:number:{0} low:number:{0} high:number:{0} level:number sessions:whole"
COLUMNS = {
    "measurements": _columns(
        "task:text task_digest:text variant:text mode:text batch:whole dims:text device:text threads:whole "
        "allocator:text python:text packages:text machine:text started_at:text throughput_per_s:number:1/s "
        "operators_cover:number rest:text output_digest:text warnings:text"
    ),
    "latencies": _columns("clock:text statistic:text " + _INTERVAL.format("s")),
    "overheads": _columns("traced:text " + _INTERVAL.format("1")),
    "sessions": _columns(
        "traced:text session:whole calls:whole warmup_calls:whole is_stable:truth import_s:number:s build_s:number:s "
        "first_call_s:number:s peak_rss_bytes:whole:B"
    ),
    "calls": _columns("traced:text session:whole call:whole wall_s:number:s cpu_s:number:s page_faults:whole"),
    "layers": _columns(
        "path:text type:text calls:whole wall_s:number:s cpu_s:number:s self_cpu_s:number:s output_shape:text"
    ),
    "operators": _columns("name:text module:text shapes:text calls:whole wall_s:number:s cpu_s:number:s"),
    "spans": _columns(
        "span:whole parent:whole name:text level:text start_s:number:s wall_s:number:s cpu_s:number:s attributes:text"
    ),
    "forecasts": _columns(
        "task:text device:text predictor:text dtype:text mode:text batch:whole value_s:number:s low_s:number:s "
        "high_s:number:s bound:text flop:number:FLOP mfu:number peak_memory_bytes:number:B memory_bytes:number:B "
        "fits:truth unknown_ops:text warnings:text"
    ),
    "forecast_operators": _columns(
        "device:text operator:whole name:text module:text phase:text category:text value_s:number:s low_s:number:s "
        "high_s:number:s bound:text"
    ),
}


def tables(run_id: str, records: Iterable[tuple[int, Any]]) -> list[Table]:
    """The tables of a run's (position, record) pairs; records of other kinds, and tables without rows, are left out."""
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
    for position, record in records:
        key = (run_id, position)
        if isinstance(record, Measurement):
            _add_measurement(rows, key, record)
        elif isinstance(record, Forecast):
            _add_forecast(rows, key, record)
        if isinstance(record, Measurement | Trace):
            rows["spans"] += [
                (*key, i, s.parent, s.name, s.level, s.start_s, s.wall_s, s.cpu_s, _json(s.attributes))
                for i, s in enumerate(record.spans)
            ]
    return [Table(name, columns, rows[name]) for name, columns in COLUMNS.items() if rows[name]]


def _add_measurement(rows: dict[str, list[tuple[Any, ...]]], key: tuple[str, int], m: Measurement) -> None:
    e = m.environment
    about: tuple[Any, ...] = (
        m.task,
        m.task_digest,
        m.variant,
        m.mode,
        m.batch,
        _json(m.dims),
        e.device,
        e.threads,
        e.allocator,
    )
    about += (e.python, _json(e.packages), _json(e.machine), e.started_at, m.throughput_per_s, m.operators_cover)
    rows["measurements"].append((*key, *about, m.rest, m.output_digest, _json(m.warnings)))
    for clock, statistics in (("wall", m.latency), ("cpu", m.cpu_latency)):
        rows["latencies"] += [(*key, clock, name, *_interval(value)) for name, value in statistics.items()]
    for run in m.levels:
        if run.overhead is not None:
            rows["overheads"].append((*key, run.level, *_interval(run.overhead)))
        for i, s in enumerate(run.sessions):
            cold = (s.warmup_calls, s.is_stable, s.import_s, s.build_s, s.first_call_s, s.peak_rss_bytes)
            rows["sessions"].append((*key, run.level, i, len(s.wall_s), *cold))
            timed = enumerate(zip(s.wall_s, s.cpu_s, s.page_faults, strict=True))
            rows["calls"] += [(*key, run.level, i, call, *values) for call, values in timed]
    rows["layers"] += [
        (*key, x.path, x.type, x.calls, x.wall_s, x.cpu_s, x.self_cpu_s, _json(x.output_shape)) for x in m.layers
    ]
    rows["operators"] += [(*key, o.name, o.module, _json(o.shapes), o.calls, o.wall_s, o.cpu_s) for o in m.operators]


def _add_forecast(rows: dict[str, list[tuple[Any, ...]]], key: tuple[str, int], f: Forecast) -> None:
    about: tuple[Any, ...] = (
        f.task,
        f.device,
        f.predictor,
        f.dtype,
        f.mode,
        f.batch,
        f.total.value_s,
        f.total.low_s,
        f.total.high_s,
    )
    about += (f.bound, f.flop, f.mfu, f.peak_memory_bytes, f.memory_bytes, f.fits)
    rows["forecasts"].append((*key, *about, _json(f.unknown_ops), _json(f.warnings)))
    rows["forecast_operators"] += [
        (*key, f.device, o.index, o.name, o.module, o.phase, o.category, o.time.value_s, o.time.low_s, o.time.high_s,
         o.bound)
        for o in f.ops
    ]  # fmt: skip


def _interval(value: Interval) -> tuple[float | int | None, ...]:
    return value.value, value.low, value.high, value.level, value.n


def _json(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":"))


def write_csv_folder(folder: Path, found: Sequence[Table]) -> Path:
    """Write `<table>.csv` for each table, and `columns.csv` with kinds and units, into a new folder.

    Numbers are written so that reading gives the same bits; an empty field is a value that is not known.
    """
    with _new_folder(folder) as part:
        for table in found:
            with (part / f"{table.name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([column.name for column in table.columns])
                writer.writerows(table.rows)  # None as '', numbers by repr
        with (part / "columns.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["table", "column", "kind", "unit"])
            writer.writerows([(t.name, c.name, c.kind, c.unit) for t in found for c in t.columns])
    return folder


def write_parquet_folder(folder: Path, found: Sequence[Table]) -> Path:
    """Write `<table>.parquet` for each table into a new folder, units in the metadata of the fields.

    Raises NotRunnable when pyarrow is missing.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise NotRunnable(f"Parquet needs pyarrow: pip install 'gnomon[parquet]' ({error})") from error
    kinds = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}
    with _new_folder(folder) as part:
        for table in found:
            fields = [
                pa.field(c.name, kinds[c.kind], metadata={"unit": c.unit} if c.unit else None) for c in table.columns
            ]
            columns = zip(*table.rows, strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
            parquet.write_table(pa.table(arrays, schema=pa.schema(fields)), part / f"{table.name}.parquet")
    return folder


class _new_folder:
    """A folder that appears under its name only when all of it is written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._part = folder, folder.with_name(f".{folder.name}.{os.getpid()}.part")

    def __enter__(self) -> Path:
        if self._folder.exists():
            raise UsageError(f"{self._folder} exists already; nothing is overwritten. Remove it or choose another name")
        try:
            self._part.mkdir(parents=True)
        except OSError as error:
            text = f"cannot write {self._folder}: {error.strerror}. Choose another place with --out"
            raise NotRunnable(text) from error
        return self._part

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._part.rename(self._folder)
            return
        shutil.rmtree(self._part, ignore_errors=True)
        if isinstance(error, OSError):
            outcome = outcome_of(error) if outcome_of(error) == "disk-full" else None
            text = f"cannot write {self._folder}: {error.strerror}. Choose another place with --out"
            raise NotRunnable(text, outcome=outcome) from error
