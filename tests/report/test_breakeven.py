import io

from rich.console import Console

from gnomon.devices.breakeven import BreakEven, Kernel
from gnomon.report.breakeven import print_break_even


def test_the_table_has_a_row_for_every_shape_and_a_column_for_every_level():
    kernels = (
        Kernel(1, 8, 16, 0.5, 2.5, 2.4, 2.6),
        Kernel(1, 8, 16, 0.9, 0.8, 0.7, 0.9),
        Kernel(2, 8, 16, 0.5, 3, 2, 4),
    )
    console = Console(file=io.StringIO(), width=100)
    print_break_even(console, BreakEven("here", "sparsity", "made up", 1, "2026-01-01T00:00:00+00:00", kernels))
    shown = " ".join(console.file.getvalue().split())
    assert "rows outputs inputs 0.5 0.9" in shown
    assert "1 8 16 2.50 [2.40, 2.60] 0.80 [0.70, 0.90]" in shown
    assert "2 8 16 3.00 [2.00, 4.00] not measured" in shown
