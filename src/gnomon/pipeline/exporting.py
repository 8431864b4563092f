"""Stored results for other tools: traces, tables, text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gnomon.core.errors import UsageError
from gnomon.store.store import Store

Format = Literal["perfetto", "otlp", "parquet", "csv", "markdown"]
_KINDS = ("measurement", "trace", "forecast")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written or sent. place: a file, a folder or an endpoint. rejected: spans that a collector refused."""

    run: str
    place: str
    records: int
    spans: int
    tables: tuple[str, ...] = ()
    rejected: int = 0
    messages: tuple[str, ...] = ()


def export_run(
    store: Store,
    name: str,
    format: Format,
    out: Path | None = None,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
) -> Exported:
    """Export a run, or one result of it ('RUN/POSITION').

    perfetto, otlp: its spans. parquet, csv: all its tables into the new folder `out`. markdown: a summary. otlp goes to
    `endpoint` when that is given, else to `out`. Nothing is overwritten. Raises UnknownName, UsageError when the run
    holds nothing of the kind, NotRunnable when a package or the collector is missing.
    """
    from gnomon.report.files import write_text

    run_name, slash, wanted = name.rpartition("/")
    run = store.run(run_name if slash else name)
    rows = [row for row in store.results(run_id=run.id) if row.kind in _KINDS]
    rows = [row for row in rows if str(row.position) == wanted] if slash else rows
    records: list[tuple[int, Any]] = [(row.position, store.load(row.id)) for row in rows]
    traced = [record for _, record in records if getattr(record, "spans", ())]
    spans = sum(len(record.spans) for record in traced)
    if format in ("perfetto", "otlp") and not traced:
        raise UsageError(f"{name} holds no spans; measure with --level layer or operator, or use gnomon trace")
    if not records:
        raise UsageError(f"{name} holds no {', '.join(_KINDS[:-1])} or {_KINDS[-1]}; see gnomon db show {run.id}")
    if format == "otlp" and endpoint is not None:
        from gnomon.report.otlp import send_otlp

        sent = send_otlp(traced, run.id, endpoint, headers, timeout_s)
        return Exported(run.id, endpoint, len(traced), sent.spans, (), sent.rejected, sent.messages)
    if out is None:
        raise UsageError("say where to with --out (or, for otlp, --endpoint)")
    if out.exists():
        raise UsageError(f"{out} exists already; nothing is overwritten. Remove it or choose another name")
    if format in ("parquet", "csv"):
        from gnomon.report.tables import tables, write_csv_folder, write_parquet_folder

        found = tables(run.id, records)
        (write_parquet_folder if format == "parquet" else write_csv_folder)(out, found)
        return Exported(run.id, str(out), len(records), spans, tuple(table.name for table in found))
    if format == "markdown":
        from gnomon.report.markdown import markdown

        title = f"gnomon {run.command} {run.task} ({run.id})"
        write_text(out, markdown(title, (record for _, record in records)))
        return Exported(run.id, str(out), len(records), spans)
    if format == "perfetto":
        from gnomon.report.trace import write_trace

        write_trace(out, *traced)
    else:
        from gnomon.report.otlp import write_otlp

        write_otlp(out, traced, run.id)
    return Exported(run.id, str(out), len(traced), spans)
