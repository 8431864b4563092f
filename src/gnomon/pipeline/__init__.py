"""The stages in their order. The only room that knows all of them; records go to the store as they come."""

from gnomon.pipeline.breakeven import break_even, stored_break_even
from gnomon.pipeline.calibrating import LEAST_CALIBRATION_S, calibrate, stored_calibration
from gnomon.pipeline.examining import Plan, examine, recall, write
from gnomon.pipeline.forecasting import forecast_everywhere, sweep_task
from gnomon.pipeline.loading import load_test, max_qps
from gnomon.pipeline.measuring import capture, compare, compare_stored, measure, this_machine
from gnomon.pipeline.sharpening import sharpen

__all__ = [
    "LEAST_CALIBRATION_S",
    "Plan",
    "break_even",
    "calibrate",
    "capture",
    "compare",
    "compare_stored",
    "examine",
    "forecast_everywhere",
    "load_test",
    "max_qps",
    "measure",
    "recall",
    "sharpen",
    "stored_break_even",
    "stored_calibration",
    "sweep_task",
    "this_machine",
    "write",
]
