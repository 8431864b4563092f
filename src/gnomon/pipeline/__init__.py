"""The stages in their order. The only room that knows all of them; records go to the store as they come."""

from gnomon.pipeline.analyzing import analyze, sweep_batches
from gnomon.pipeline.attending import profile_attention, simulate_attention
from gnomon.pipeline.breakeven import break_even, stored_break_even
from gnomon.pipeline.calibrating import LEAST_CALIBRATION_S, calibrate, stored_calibration
from gnomon.pipeline.characterizing import characterize_gcn
from gnomon.pipeline.comparing import (
    check_same,
    compare,
    compare_stored,
    compare_tasks,
    load_baseline,
    save_baseline,
    stored_measurement,
)
from gnomon.pipeline.examining import Plan, examine, recall, write
from gnomon.pipeline.exporting import Exported, export_run
from gnomon.pipeline.forecasting import forecast_everywhere, sweep_task
from gnomon.pipeline.importing import import_trace
from gnomon.pipeline.loading import load_test, max_qps
from gnomon.pipeline.measuring import capture, measure, this_machine
from gnomon.pipeline.sharpening import sharpen
from gnomon.pipeline.verifying import log_lock, record_log, verify_lock, verify_log

__all__ = [
    "LEAST_CALIBRATION_S",
    "Exported",
    "Plan",
    "analyze",
    "break_even",
    "calibrate",
    "capture",
    "characterize_gcn",
    "check_same",
    "compare",
    "compare_stored",
    "compare_tasks",
    "examine",
    "export_run",
    "forecast_everywhere",
    "import_trace",
    "load_baseline",
    "load_test",
    "log_lock",
    "max_qps",
    "measure",
    "profile_attention",
    "recall",
    "record_log",
    "save_baseline",
    "sharpen",
    "simulate_attention",
    "stored_break_even",
    "stored_calibration",
    "stored_measurement",
    "sweep_batches",
    "sweep_task",
    "this_machine",
    "verify_lock",
    "verify_log",
    "write",
]
