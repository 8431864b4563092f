"""Where sparse and int8 layers begin to pay on this machine."""

from gnomon.devices.breakeven import BreakEven, Kind
from gnomon.pipeline._progress import Progress, silent
from gnomon.pipeline.measuring import this_machine
from gnomon.store.store import Run, Store


def break_even(kind: Kind, threads: int, budget_s: float, run: Run, progress: Progress = silent) -> BreakEven:
    """What sparse or int8 linear layers take on this machine against dense ones."""
    import torch

    from gnomon.measure.breakeven import measure_break_even

    machine = this_machine(threads, run, progress)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table = measure_break_even(kind, machine.name, budget_s=budget_s, progress=progress)
    finally:
        torch.set_num_threads(before)
    run.add(table)
    return table


def stored_break_even(store: Store, kind: Kind) -> dict[str, BreakEven]:
    """Device name -> the newest table of this kind that was measured on it."""
    tables = (store.load(row.id) for row in store.results(kind="break-even"))
    return {table.device: table for table in tables if table.kind == kind}
