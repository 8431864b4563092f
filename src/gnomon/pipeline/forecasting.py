"""Forecast a task on devices that are not here."""

from collections.abc import Callable, Mapping, Sequence

from gnomon.devices.breakeven import BreakEven
from gnomon.devices.device import Device
from gnomon.forecast import calibration
from gnomon.forecast.record import Forecast
from gnomon.forecast.rental import Prices
from gnomon.forecast.setting import Setting, forecasts
from gnomon.forecast.sweep import Sizes, Sweep, sweep
from gnomon.spec.task import Task
from gnomon.store.store import Run
from gnomon.workload.graph import OpGraph


def forecast_everywhere(
    task: Task,
    graph: OpGraph,
    devices: Sequence[Device],
    run: Run,
    setting: Setting | None = None,
    calibrations: Mapping[str, calibration.Calibration] | None = None,
    tables: Mapping[str, BreakEven] | None = None,
) -> tuple[list[Forecast], list[str]]:
    """A forecast for every device that can run the task so, and a remark for each that cannot.

    calibrations: device name -> the calibration that its forecast uses. tables: device name -> what was measured of
    sparse or quantized layers there.
    """
    found, remarks = forecasts(
        graph,
        devices,
        setting or Setting(),
        batch=task.dims.get("B", 0),
        dims=task.dims,
        calibrations=calibrations,
        tables=tables,
    )
    for result in found:
        run.add(result)
    return found, remarks


def sweep_task(
    resolve: Callable[[Sizes], Task],
    devices: Sequence[Device],
    run: Run,
    *,
    batches: Sequence[int],
    seqlens: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    length: int | None = None,
    setting: Setting | None = None,
    prices: Prices | None = None,
) -> Sweep:
    """Every combination of batch, length, dtype and device forecast. resolve: the task at some sizes."""
    from gnomon.workload.capture import capture_task

    result = sweep(
        lambda sizes: capture_task(resolve(sizes)),
        devices,
        batches=batches,
        seqlens=seqlens,
        dtypes=dtypes,
        length=length,
        setting=setting,
        prices=prices,
    )
    run.add(result)
    return result
