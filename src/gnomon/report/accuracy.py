"""How accurate forecasts are, as tables: for the terminal, and as the Markdown of the accuracy page."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

    from gnomon.forecast.evaluate import Accuracy, Evaluation, ModelError


class Row(NamedTuple):
    """One line: a group, how many, errors in per cent, share of measurements inside the interval, its width."""

    group: str
    number: int
    mean: float
    median: float
    worst: float
    coverage: float
    width: float


HEAD = ("n", "mean %", "median %", "worst %", "in 90 % interval", "high / low")


def class_rows(kernels: Sequence["Accuracy"]) -> list[Row]:
    """One row per class and precision: the mean over devices of each figure, the worst of all."""
    rows = []
    for what, precision in dict.fromkeys((a.what, a.precision) for a in kernels):
        mine = [a for a in kernels if (a.what, a.precision) == (what, precision)]
        rows.append(_mean(f"{what}, {precision}", mine))
    return rows


def _mean(group: str, mine: Sequence["Accuracy"]) -> Row:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(a, name) for a in mine)

    return Row(
        group, sum(a.count for a in mine), 100 * mean("mean"), 100 * mean("median"), 100 * max(a.worst for a in mine),
        100 * mean("coverage"), mean("width"),
    )  # fmt: skip


def kernel_rows(kernels: Iterable["Accuracy"]) -> list[Row]:
    """One row per class, precision and device."""
    return [_mean(f"{a.what}, {a.precision}, {a.device}" + ("" if not a.seen else " (seen)"), [a]) for a in kernels]


def model_rows(models: Sequence["ModelError"]) -> list[Row]:
    """One row per device, then all labels, then those that nothing speaks against."""
    devices = list(dict.fromkeys(m.device for m in models))
    groups = [(name, [m for m in models if m.device == name]) for name in devices]
    sound = [m for m in models if not m.defect]
    groups += [("all", list(models)), ("all but doubtful labels", sound)]
    return [_errors(name, mine) for name, mine in groups if mine]


def _errors(group: str, mine: Sequence["ModelError"]) -> Row:
    errors = [100 * abs(m.forecast.value_s / m.measured_s - 1) for m in mine]
    inside = [m.forecast.low_s <= m.measured_s <= m.forecast.high_s for m in mine]
    width = statistics.median(m.forecast.high_s / m.forecast.low_s for m in mine)
    return Row(group, len(mine), statistics.fmean(errors), statistics.median(errors), max(errors),
               100 * statistics.fmean(inside), width)  # fmt: skip


def tables(evaluation: "Evaluation") -> list[tuple[str, list[Row]]]:
    """Every table with its title."""
    how = "the GPU judged left out" if evaluation.leave_one_out else "as the predictor is"
    found = [
        (f"Whole models, {how}", model_rows(evaluation.models)),
        (f"Kernels by class, mean over GPUs, {how}", class_rows(evaluation.kernels)),
        (f"Kernels by class and GPU, {how}", kernel_rows(evaluation.kernels)),
    ]
    return [(title, rows) for title, rows in found if rows]


def doubtful(models: Iterable["ModelError"]) -> list[str]:
    """The labels that are doubted, each with its error."""
    return [
        f"{m.device}, {m.model} {m.mode} batch {m.batch}: {m.defect}, error "
        f"{100 * abs(m.forecast.value_s / m.measured_s - 1):.0f} %"
        for m in models
        if m.defect
    ]


def floor(evaluation: "Evaluation") -> str:
    """What is known of the error below which no predictor could be scored on this pack."""
    labels = [(m.device, m.model, m.mode, m.seqlen, m.batch, m.option) for m in evaluation.models]
    repeated = len(labels) - len(set(labels))
    if repeated:
        return f"{repeated} of {len(labels)} labels repeat others; what these differ by is no forecast's fault."
    return (
        "The pack holds one time per kernel and model, no repeats: what its sessions differ by, and so the error below "
        "which no predictor can be scored, is not known. On a machine of your own `gnomon run` states it."
    )


def _cells(row: Row) -> list[str]:
    return [row.group, f"{row.number:,}", f"{row.mean:.1f}", f"{row.median:.1f}", f"{row.worst:.0f}",
            f"{row.coverage:.0f} %", f"{row.width:.2f}"]  # fmt: skip


def print_accuracy(console: "Console", evaluation: "Evaluation") -> None:
    """All tables on the terminal, and the doubtful labels."""
    from rich.table import Table

    for title, rows in tables(evaluation):
        table = Table(title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for name in HEAD:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*_cells(row))
        console.print(table)
    console.print(floor(evaluation), markup=False, highlight=False)
    for line in doubtful(evaluation.models):
        console.print(f"doubtful label: {line}", markup=False, highlight=False)


def markdown(evaluation: "Evaluation") -> str:
    """The same tables as Markdown."""
    parts = []
    for title, rows in tables(evaluation):
        lines = [f"## {title}", "", "| | " + " | ".join(HEAD) + " |", "|---|" + "---:|" * len(HEAD)]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
        parts.append("\n".join(lines))
    parts.append(floor(evaluation))
    found = doubtful(evaluation.models)
    if found:
        parts.append(
            "Doubtful labels, by what the labels themselves say:\n\n" + "\n".join(f"- {line}" for line in found)
        )
    return "\n\n".join(parts) + "\n"


_COMPARED = (
    "Whole models, the GPU judged left out, every predictor fitted on the same kernels. `roofline` takes nothing but "
    "peaks; `linear-regression` is after Li et al., `habitat` after Yu et al. (2021), `neusight` our implementation of "
    "the published design with networks of width {width}, {rows:,} rows a class and {epochs} epochs, from one seed: "
    "smaller than its authors', and unstable where the left-out GPU lies outside the others. `physics` is ours without "
    "anything learnt, `gnomon` what users get."
)


def ablation(compared: Mapping[str, Any]) -> str:
    """The table of `benchmarks/forecast_ablation.py` as Markdown: whole models, then the mean on each GPU."""
    rows = compared["predictors"]
    devices = list(next(iter(rows.values()))["e2e_by_device"])
    heads = ["mean %", "median %", "worst %", "mean %, sound labels", *(_short(name) for name in devices)]
    lines = ["## Against other predictors", "", "| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, row in rows.items():
        numbers = [row["e2e"][key] for key in ("mean", "median", "worst")] + [row["e2e_sound"]["mean"]]
        numbers += [row["e2e_by_device"][device]["mean"] for device in devices]
        lines.append(f"| {name} | " + " | ".join(f"{100 * number:.1f}" for number in numbers) + " |")
    training = compared["about"]["training"]["neusight"]
    lines += ["", _COMPARED.format(**training)]
    return "\n".join(lines) + "\n"


def calibrated_cpu(found: Mapping[str, Any]) -> str:
    """The result of `benchmarks/forecast_cpu.py` as Markdown, next to the error below which nobody could be scored."""
    what = f"{len(found['rows'])} models on {found['device']}, one thread."
    head = ("| | mean % | median % | worst % | in 90 % interval |", "|---|---:|---:|---:|---:|")
    lines = ["## A CPU before and after calibration", "", what, "", *head]
    for which, one in found["summary"].items():
        cells = " | ".join(f"{100 * one[key]:.1f}" for key in ("mean", "median", "worst"))
        lines.append(f"| {which} | {cells} | {100 * one['coverage']:.0f} % |")
    agreed = found["agreement"]
    said = (
        f"Rounds of one model, each a fresh process, differ by {100 * agreed['between']:.1f} % (standard deviation, "
        f"mean of {agreed['models']} models). A forecast that knew the true means would be scored against them with a "
        f"mean error of {100 * agreed['floor']:.1f} %: no predictor can be scored below that."
    )
    return "\n".join([*lines, "", said]) + "\n"


def _short(device: str) -> str:
    """'MI100' of 'AMD Instinct MI100', 'A100' of 'NVIDIA A100-PCIE-40GB'."""
    return device.split()[-1].split("-")[0]
