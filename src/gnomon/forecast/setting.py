"""How the step that is forecast would be run: in which precision, compiled or not, on how many devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gnomon.core.errors import UsageError
from gnomon.devices.device import Device
from gnomon.forecast.calibration import Calibration
from gnomon.forecast.fusion import fuse
from gnomon.forecast.predict import Forecaster
from gnomon.forecast.predictors import PREDICTORS, Predictor
from gnomon.forecast.record import Forecast, Host
from gnomon.workload.graph import OpGraph


@dataclass(frozen=True, slots=True)
class Setting:
    """dtype: priced in this one, see `dtypes.CASTS`; None: as captured. compiled: fuse as TorchInductor would.

    cuda_graph: launched as one CUDA graph. tensor, pipeline, data: degrees of parallelism; micro_batches, schedule and
    zero belong to them. predictor: one of `PREDICTORS`; None: ours.
    """

    dtype: str | None = None
    compiled: bool = False
    cuda_graph: bool = False
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    micro_batches: int = 1
    schedule: str = "1f1b"
    zero: int = 0
    predictor: str | None = None

    @property
    def host(self) -> Host:
        return "cuda-graph" if self.cuda_graph else "compiled" if self.compiled else "eager"

    @property
    def is_parallel(self) -> bool:
        return self.tensor * self.pipeline * self.data > 1


def forecasts(
    graph: OpGraph,
    devices: Sequence[Device],
    setting: Setting,
    *,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> tuple[list[Forecast], list[str]]:
    """A forecast for every device that can run the step so, and the reason for each that cannot.

    calibrations: device name -> kernels measured on it, which correct its forecast.

    Raises UsageError for a graph without fixed sizes and for a predictor or a degree that cannot be.
    """
    check_sizes(graph)
    calibrations = calibrations or {}
    plain = forecaster(graph, setting, batch=batch, dims=dims)
    found, remarks = [], []
    for device in devices:
        known = calibrations.get(device.name)
        ready = plain if known is None else forecaster(graph, setting, batch=batch, dims=dims, calibration=known)
        try:
            found.append(ready.on(device))
        except UsageError as error:
            remarks.append(str(error))
    return found, remarks


def forecaster(
    graph: OpGraph,
    setting: Setting,
    *,
    batch: int = 0,
    dims: Mapping[str, int] | None = None,
    calibration: Calibration | None = None,
) -> Forecaster:
    """The graph ready for any number of devices: fused when the setting compiles. Raises UsageError."""
    predictor: Predictor | None = PREDICTORS.get(setting.predictor)() if setting.predictor is not None else None
    return Forecaster(
        fuse(graph) if setting.compiled else graph,
        dtype=setting.dtype,
        batch=batch,
        dims=dims,
        predictor=predictor,
        host=setting.host,
        calibration=calibration,
    )


def check_sizes(graph: OpGraph) -> None:
    """Raises UsageError when an input is empty or has a size that is no number: there is nothing to forecast."""
    for info in graph.tensors:
        if info.role == "input" and any(not isinstance(size, int) or size < 1 for size in info.shape):
            shape = " x ".join(str(size) for size in info.shape)
            raise UsageError(
                f"{graph.name}: wanted inputs with fixed sizes of at least 1, got one of {shape}. "
                "Give the sizes with --batch, --seqlen or --dim"
            )
