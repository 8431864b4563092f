"""A1: latency and throughput by batch size, and the smallest batch that reaches the best throughput."""

from collections.abc import Sequence

from gnomon.core.stats import Interval
from gnomon.measure.analyses.analysis import Analysis, Cell, Column, Form
from gnomon.measure.analyses.rows import model_s, why_no_layers
from gnomon.measure.analyses.subject import Subject
from gnomon.measure.record import Measurement

WITHIN = 0.05  # of the best throughput

FORM = Form(
    "batch-size",
    "A1 latency and throughput by batch size",
    "How do latency and throughput change with the batch, and which batch is enough?",
    (
        Column("batch", "count"),
        Column("latency_s", "s", "median of the untraced calls"),
        Column("latency_low_s", "s"),
        Column("latency_high_s", "s"),
        Column("mean_s", "s"),
        Column("throughput", "1/s", "batch over mean latency"),
        Column("throughput_low", "1/s"),
        Column("throughput_high", "1/s"),
        Column("sessions", "count"),
        Column("optimal", "bool", f"smallest batch within {WITHIN:.0%} of the best throughput"),
    ),
    frozenset(),
)


def analyze(subject: Subject) -> Analysis:
    """One row per batch size; the measurements are those of a sweep, or of several runs."""
    if subject.measurement is None:
        return _traced(subject)
    chosen = [m for m in subject.measurements if m.variant == subject.measurement.variant and "mean" in m.latency]
    newest = {m.batch: m for m in chosen}  # of two of one batch the later
    rows = [_row(m) for _, m in sorted(newest.items())]
    if not rows:
        return FORM.cannot(subject.name, "the measurement holds no untraced latency")
    best = optimal(rows)
    notes = [] if len(rows) > 1 else [
        "one batch size only: gnomon analyze TASK --sweep-batches 1,2,4,8 measures more, --with RUN adds stored runs"
    ]  # fmt: skip
    if len(rows) > 1 and best == len(rows) - 1:
        notes.append("the largest batch is the optimal one: a larger one may be better still")
    fastest = max(float(row[5] or 0.0) for row in rows)
    if float(rows[best][5] or 0.0) < (1 - WITHIN) * fastest:
        notes.append("the optimal batch is within the bound by its interval only; more sessions would tell")
    return FORM.answer(subject.name, [(*row, i == best) for i, row in enumerate(rows)], notes)


def optimal(rows: Sequence[Sequence[Cell]]) -> int:
    """Index of the smallest batch whose throughput is, as far as its interval tells, within `WITHIN` of the best.

    rows: in ascending order of batch, as this analysis makes them.
    """
    best = max(float(row[5] or 0.0) for row in rows)
    reach = [max(float(row[5] or 0.0), float(row[7] or 0.0)) for row in rows]
    return next(i for i, most in enumerate(reach) if most >= (1 - WITHIN) * best)


def _row(m: Measurement) -> tuple[Cell, ...]:
    p50, mean = m.latency["p50"], m.latency["mean"]
    low, high = _throughput(m.batch, mean)
    return m.batch, p50.value, p50.low, p50.high, mean.value, m.batch / mean.value, low, high, mean.n


def _throughput(batch: int, mean: Interval) -> tuple[float | None, float | None]:
    if not mean.low or not mean.high:
        return None, None
    return batch / mean.high, batch / mean.low


def _traced(subject: Subject) -> Analysis:
    seconds = model_s(subject)
    if not seconds:
        return FORM.cannot(subject.name, why_no_layers(subject))
    told = {s.attributes.get("batch_size", s.attributes.get("batch")) for s in subject.spans if s.level == "model"}
    try:
        (batch,) = (int(str(one)) for one in told if one is not None)
    except ValueError:
        row: tuple[Cell, ...] = (None, seconds, None, None, seconds, None, None, None, 1, None)
        return FORM.answer(subject.name, [row], ["the spans of the model level tell no batch size (batch_size)"])
    return FORM.answer(subject.name, [(batch, seconds, None, None, seconds, batch / seconds, None, None, 1, True)])
