"""Simulated attention in the terminal: tiles and forecasts of windows, an accelerator, a pipeline, profiles."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gnomon.core.units import format_bytes, format_count
from gnomon.forecast.length_aware.arrangements import Row
from gnomon.forecast.windowed import Speedup, Windowed, efficiency, expected_speedup
from gnomon.kernels.detected_attention.accelerator.energy import Constants, scaling
from gnomon.kernels.detected_attention.accelerator.simulate import Simulation
from gnomon.kernels.neighborhood_attention.problem import Problem
from gnomon.kernels.neighborhood_attention.published import CASES, DENSE_FLOP_S, SOURCE
from gnomon.kernels.neighborhood_attention.record import AttentionProfile
from gnomon.kernels.neighborhood_attention.tiles import TileCount, TilePair
from gnomon.report import text

_WIDTH = 118


def sizes(values: Sequence[int]) -> str:
    """'256x256'."""
    return "x".join(map(str, values))


def print_tiles(console: Console, problem: Problem, counts: Sequence[TileCount], strides: Sequence[Problem]) -> None:
    """One row per problem (they differ in stride) and tile. strides: the problem of every count."""
    columns = ("stride", "query tile", "key tile", ">FLOP bound", ">tile bound", ">in vain", ">no mask", ">expected")
    table = _table(f"{describe(problem)}: tiles of one head", *columns)
    for of, found in zip(strides, counts, strict=True):
        table.add_row(
            sizes(of.stride), sizes(found.tiles.query), sizes(found.tiles.kv), text.times(found.flop_bound),
            text.times(found.tile_bound), text.percent(found.wasted), text.percent(found.unmasked),
            _range(expected_speedup(found)),
        )  # fmt: skip
    _print(console, table)
    _say(console, "in vain: computed pairs that nobody asked for. no mask: tiles in which every query sees every key.")


def print_windowed(console: Console, rows: Sequence[tuple[Problem, TilePair, Windowed]]) -> None:
    """The forecasts, one row per problem, tile and device."""
    columns = ("device", "stride", "tiles", ">dense", ">window", ">90 % interval", ">speed-up", "bound")
    table = _table("forecast, the kernel alone", *columns)
    for problem, tiles, found in rows:
        shown = text.estimate(found.time)
        table.add_row(
            found.device, sizes(problem.stride), _pair(tiles), text.seconds(found.dense.value_s), shown.value,
            shown.interval, _range(found.speedup), found.bound,
        )  # fmt: skip
    _print(console, table)
    if rows:
        _say(console, f"Dense: the forecaster's attention class ({rows[0][2].predictor}).")
    print_known(console)


def print_known(console: Console) -> None:
    """What of a forecast is counted, and what is guessed."""
    rate = efficiency()
    _say(console, "Known: the tiles, counted exactly; the dense kernel, by its own forecast and interval.")
    _say(
        console,
        f"Guessed: a windowed kernel keeps {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] of the dense kernel's "
        f"rate, tile for tile: {len(CASES)} published forward passes on one H100; other devices, and backward "
        "passes, are taken to be alike. `gnomon attention profile` measures this machine instead.",
    )


def print_published(console: Console, forecasts: Sequence[Windowed]) -> None:
    """The published problems: counts beside the card's, measured speed-ups beside what the other cases lead to expect.

    forecasts: of the cases, on the GPU that they were measured on.
    """
    problem = ("space", "window", "stride")
    bounds = _table("published problems of generalized neighborhood attention: bounds", *problem, "tile",
                    ">FLOP bound", ">ours", ">tile bound", ">ours")  # fmt: skip
    speeds = _table("the same problems: speed-up over dense, and time of the kernel", *problem, ">measured",
                    ">expected", ">measured", ">forecast", ">90 % interval")  # fmt: skip
    for i, (case, found) in enumerate(zip(CASES, forecasts, strict=True)):
        counted = case.counted
        named = [sizes(part) for part in (case.problem.space, case.problem.kernel_size, case.problem.stride)]
        bounds.add_row(
            *named, sizes(case.tiles.query), f"{case.flop_bound:.1f}", f"{counted.flop_bound:.2f}",
            f"{case.tile_bound:.1f}", f"{counted.tile_bound:.2f}",
        )  # fmt: skip
        others = efficiency([*CASES[:i], *CASES[i + 1 :]])
        shown = text.estimate(found.time)
        speeds.add_row(
            *named, text.times(case.speedup), _range(expected_speedup(counted, others)), text.seconds(case.seconds),
            shown.value, shown.interval,
        )  # fmt: skip
    _print(console, bounds)
    _say(console, "Bounds without 'ours': the method's card, to one digit. Ours: counted now, exactly.")
    _print(console, speeds)
    dense = " to ".join(format_count(rate, "FLOP/s") for rate in DENSE_FLOP_S)
    _say(console, f"Measured: {SOURCE}; times from its rates; its dense kernel reached {dense}.")
    _say(
        console,
        "Expected: ours, from the tile bound and what the other six cases keep of it. Forecast: ours, for "
        f"{forecasts[0].device}; the rate that windowed kernels keep comes from all seven.",
    )


def print_valid(console: Console, problem: Problem, counts: Sequence[TileCount], most: int) -> None:
    """Valid tiles in their order: the least work first."""
    table = _table(f"{describe(problem)}: {len(counts)} valid pairs of tiles",
                   ">", "query tile", "key tile", ">tile bound", ">in vain", ">no mask")  # fmt: skip
    for i, found in enumerate(counts[:most], start=1):
        table.add_row(str(i), sizes(found.tiles.query), sizes(found.tiles.kv), text.times(found.tile_bound),
                      text.percent(found.wasted), text.percent(found.unmasked))  # fmt: skip
    _print(console, table)
    if len(counts) > most:
        _say(console, f"and {len(counts) - most} more; --rows {len(counts)} lists all")


def print_profile(console: Console, found: AttentionProfile) -> None:
    """Backends from the fastest to the slowest, and why the others cannot run."""
    problem = Problem(found.space, found.kernel_size, found.stride, found.dilation, found.is_causal)
    what = "forward and backward" if found.backward else "forward"
    title = (
        f"{describe(problem)}, batch {found.batch}, heads {found.heads}, D {found.head_dim}, {found.dtype}: "
        f"{what}, {found.rounds} rounds"
    )
    table = _table(title, "backend", ">CPU min", ">CPU median", ">wall min", ">first call", ">times the best",
                   ">useful", ">memory")  # fmt: skip
    for row in found.rows:
        table.add_row(
            row.name, text.seconds(row.cpu_min_s), text.seconds(row.cpu_median_s), text.seconds(row.wall_min_s),
            text.seconds(row.first_call_s), f"{row.wall_min_s / found.rows[0].wall_min_s:.2f}",
            format_count(row.useful_flop_s, "FLOP/s"), format_bytes(row.memory_bytes),
        )  # fmt: skip
    _print(console, table)
    for name, reason in found.refused.items():
        _say(console, f"{name}: {reason}")
    _say(console, f"{found.environment}; {found.measured_at[:10]}")


def print_accelerator(console: Console, runs: Sequence[Simulation], constants: Constants, kept_from: str) -> None:
    """Designs and orders against dense (the last run), stage by stage, and every constant with its source."""
    dense, layer = runs[-1], runs[0].layer
    title = (
        f"n {layer.tokens}, d {layer.width}, {layer.heads} heads of {layer.head_dim}, FFN {layer.ffn}; detector rank "
        f"{layer.rank}, {layer.bits} bits; kept {100 * runs[0].pairs / dense.pairs:.1f} % of dense pairs ({kept_from})"
    )
    table = _table(title, "", ">cycles", ">speed-up", ">energy", ">dense / it", ">used", ">attention", ">keys read")
    for run in runs:
        block = sum(stage.cycles for stage in run.stages if stage.name in ("detection", "attention"))
        table.add_row(
            run.name, f"{run.cycles:,}", text.times(dense.cycles / run.cycles), text.joules(run.energy_j),
            text.times(dense.energy_j / run.energy_j), text.percent(run.utilization),
            f"{text.times(dense.stage('attention').cycles / block)}", f"{run.loads:,}",
        )  # fmt: skip
    _print(console, table)
    _say(console, "attention: speed-up of detection and exact attention alone. used: useful products of all possible.")
    stages = _table(f"stages of {runs[0].name}", "stage", ">cycles", ">share", "bound", ">SRAM", ">DRAM", ">energy",
                    ">dense: cycles", ">energy")  # fmt: skip
    known = {stage.name: stage for stage in dense.stages}
    for stage in runs[0].stages:
        other = known.get(stage.name)
        stages.add_row(
            stage.name, f"{stage.cycles:,}", text.percent(stage.cycles / runs[0].cycles), stage.bound,
            format_bytes(stage.events.get("sram_byte", 0)), format_bytes(stage.events.get("dram_byte", 0)),
            text.joules(stage.energy_j), f"{other.cycles:,}" if other else "-",
            text.joules(other.energy_j) if other else "-",
        )  # fmt: skip
    _print(console, stages)
    _print_constants(console, constants, runs)


def _print_constants(console: Console, constants: Constants, runs: Sequence[Simulation]) -> None:
    table = _table("energy of one event, at 22 nm", "event", ">energy", ">as in the source", "source", "note")
    used = {event for run in runs for stage in run.stages for event in stage.events}
    for name, event in constants.events.items():
        if name in used:
            table.add_row(name, f"{constants.joule(name) * 1e12:.4g} pJ", f"{event.joule * 1e12:.4g} pJ",
                          event.source, event.note)  # fmt: skip
    _print(console, table)
    for key, source in constants.sources.items():
        _say(console, f"{key}: {source}")
    _say(
        console,
        f"scaling: ours: {constants.process_m * 1e9:.0f} nm to 22 nm is {scaling(constants.process_m):.3f}, by "
        "capacitance in proportion to length and 0.8 V for 0.9 V; DRAM is not scaled",
    )


def print_pipeline(console: Console, rows: Sequence[Row], stages: Mapping[str, Sequence[str]], draws: int) -> None:
    """Arrangements of a batch in a pipeline, each figure a mean over draws."""
    table = _table(f"one batch through the pipeline, mean of {draws} draws" if draws > 1 else "one batch through the "
                   "pipeline", "arrangement", ">makespan", ">speed-up", ">busy", ">useful", ">stages")  # fmt: skip
    for row in rows:
        table.add_row(row.name, text.seconds(row.makespan_s), text.times(row.speedup), text.percent(row.busy),
                      text.percent(row.useful), str(len(stages[row.name])))  # fmt: skip
    _print(console, table)
    _say(console, "speed-up: over dense padded. useful: busy with tokens that are no padding, mean over stages.")


def describe(problem: Problem) -> str:
    """'256x256, window 80x80, dilation 2x2, causal along axis 0': what is not usual; the stride is left out."""
    said = f"{sizes(problem.space)}, window {sizes(problem.kernel_size)}"
    if any(d != 1 for d in problem.dilation):
        said += f", dilation {sizes(problem.dilation)}"
    if any(problem.is_causal):
        said += ", causal along axis " + " and ".join(str(i) for i, causal in enumerate(problem.is_causal) if causal)
    return said


def _pair(tiles: TilePair) -> str:
    return sizes(tiles.query) if tiles.query == tiles.kv else f"{sizes(tiles.query)}/{sizes(tiles.kv)}"


def _range(found: Speedup) -> str:
    return f"{text.times(found.value)} [{found.low:.3g}, {found.high:.3g}]"


def _table(title: str, *columns: str) -> Table:
    """A column whose name begins with '>' stands at the right."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return table


def _print(console: Console, table: Table) -> None:
    if not console.is_terminal and console.width < _WIDTH:  # a file has room
        console = Console(file=console.file, width=_WIDTH)
    console.print(table)


def _say(console: Console, said: str) -> None:
    console.print(Text(said, style="dim"))
