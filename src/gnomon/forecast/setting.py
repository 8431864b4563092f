"""How the step that is forecast would be run: in which precision, compiled or not, on how many devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gnomon.core.errors import UsageError
from gnomon.devices.breakeven import BreakEven
from gnomon.devices.device import Device
from gnomon.forecast.calibration import Calibration
from gnomon.forecast.fusion import fuse
from gnomon.forecast.model import load
from gnomon.forecast.predict import Forecaster
from gnomon.forecast.predictors import PREDICTORS, Gnomon, Predictor
from gnomon.forecast.record import Forecast, Host
from gnomon.forecast.whatif import WhatIf, WhatIfForecaster
from gnomon.workload.graph import OpGraph


@dataclass(frozen=True, slots=True)
class Setting:
    """dtype: priced in this one, see `dtypes.CASTS`; None: as captured. compiled: fuse as TorchInductor would.

    cuda_graph: launched as one CUDA graph. tensor, pipeline, data: degrees of parallelism; micro_batches, schedule and
    zero belong to them. predictor: one of `PREDICTORS`, or the folder of a fit; None: ours. sparsity, bits: of linear
    layers' weights, see `whatif`.
    """

    dtype: str | None = None
    compiled: bool = False
    cuda_graph: bool = False
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    micro_batches: int = 1
    schedule: Literal["gpipe", "1f1b"] = "1f1b"
    zero: int = 0
    predictor: str | None = None
    sparsity: float | None = None
    bits: int | None = None

    @property
    def host(self) -> Host:
        return "cuda-graph" if self.cuda_graph else "compiled" if self.compiled else "eager"

    @property
    def is_parallel(self) -> bool:
        """Whether anything but one device doing one batch at a time is asked for."""
        return max(self.tensor, self.pipeline, self.data, self.micro_batches) > 1 or self.zero > 0

    @property
    def changes_weights(self) -> bool:
        return self.sparsity is not None or self.bits is not None


def forecasts(
    graph: OpGraph,
    devices: Sequence[Device],
    setting: Setting,
    *,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
    tables: Mapping[str, BreakEven] | None = None,
) -> tuple[list[Forecast], list[str]]:
    """A forecast for every device that can run the step so, and the reason for each that cannot.

    calibrations: device name -> kernels measured on it, which correct its forecast. tables: device name -> sparse or
    quantized layers measured there.

    Raises UsageError for a graph without fixed sizes and for a predictor or a degree that cannot be.
    """
    check_sizes(graph)
    if setting.is_parallel:
        if setting.changes_weights:
            raise UsageError("--sparsity and --bits are about one device; leave out the options for several devices")
        return _parallel(graph, devices, setting, batch, dims)
    calibrations = calibrations or {}
    plain = forecaster(graph, setting, batch=batch, dims=dims, tables=tables)
    found, remarks = [], []
    for device in devices:
        known = calibrations.get(device.name)
        ready = plain
        if known is not None:
            ready = forecaster(graph, setting, batch=batch, dims=dims, calibration=known, tables=tables)
        try:
            found.append(ready.on(device))
        except UsageError as error:
            remarks.append(str(error))
    return found, remarks


def _parallel(
    graph: OpGraph, devices: Sequence[Device], setting: Setting, batch: int, dims: Mapping[str, int] | None
) -> tuple[list[Forecast], list[str]]:
    """The same over several devices of each kind. Raises UsageError for degrees that cannot be."""
    from gnomon.forecast.parallel import Parallel, forecast_parallel

    if setting.compiled and max(setting.tensor, setting.pipeline) > 1:
        raise UsageError(
            "fused operators cannot be cut over devices; leave out --compile, or the tensor and pipeline degrees"
        )
    degrees = Parallel(
        setting.tensor, setting.pipeline, setting.data, setting.micro_batches, setting.schedule, setting.zero
    )
    chosen = predictor(setting.predictor)
    graph = fuse(graph) if setting.compiled else graph
    found, remarks = [], []
    for device in devices:
        try:
            one = forecast_parallel(
                graph, device, degrees, dtype=setting.dtype, batch=batch, dims=dims, predictor=chosen, host=setting.host
            )  # fmt: skip
            found.append(one)
        except UsageError as error:
            remarks.append(str(error))
    return found, remarks


def predictor(name: str | None) -> Predictor:
    """The predictor of that name, or the one that `forecast fit --out` wrote to the folder `name`; None: ours.

    Raises UnknownName, NotRunnable for a baseline that was not fitted here, DamagedData for a folder without a fit.
    """
    if name is None:
        return Gnomon()
    if name not in PREDICTORS and Path(name).is_dir():
        return Gnomon(load(Path(name)))
    chosen: Predictor = PREDICTORS.get(name)()
    return chosen


def forecaster(
    graph: OpGraph,
    setting: Setting,
    *,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    calibration: Calibration | None = None,
    tables: Mapping[str, BreakEven] | None = None,
) -> Forecaster:
    """The graph ready for any number of devices: fused when the setting compiles. Raises UsageError."""
    arguments: dict[str, Any] = {
        "dtype": setting.dtype,
        "batch": batch,
        "dims": dims,
        "predictor": predictor(setting.predictor),
        "host": setting.host,
        "calibration": calibration,
    }
    prepared = fuse(graph) if setting.compiled else graph
    if setting.changes_weights:
        what_if = WhatIf(setting.sparsity, setting.bits, tables or {})
        return WhatIfForecaster(prepared, what_if, **arguments)
    return Forecaster(prepared, **arguments)


def check_sizes(graph: OpGraph) -> None:
    """Raises UsageError when an input is empty or has a size that is no number: there is nothing to forecast."""
    for info in graph.tensors:
        if info.role == "input" and any(not isinstance(size, int) or size < 1 for size in info.shape):
            shape = " x ".join(str(size) for size in info.shape)
            raise UsageError(
                f"{graph.name}: wanted inputs with fixed sizes of at least 1, got one of {shape}. "
                "Give the sizes with --batch, --seqlen or --dim"
            )
