"""Forecasts for several devices: tensor, pipeline and data parallelism on one graph."""

from gnomon.forecast.parallel.forecast import forecast_parallel
from gnomon.forecast.parallel.plan import Parallel

__all__ = ["Parallel", "forecast_parallel"]
