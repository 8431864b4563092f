"""Where work lies under a device's roofline: Williams et al. 2009, doi 10.1145/1498765.1498785.

Intensity is FLOP per byte of memory traffic, the ridge is peak over bandwidth; work is memory-bound iff its intensity
is below the ridge, and no work can go faster than min(peak, intensity x bandwidth).
"""

from dataclasses import dataclass
from typing import Literal

from gnomon.devices.device import Device
from gnomon.measure.analyses.analysis import Cell, Column

Limit = Literal["compute", "memory", "no work", "unknown"]

TOLERANCE = 1.05  # above a roof by more than this, it is the roof that is wrong, or memory was not what was read
ROOF_COLUMNS = (  # of `Place.cells`
    Column("roof_flop_s", "FLOP/s", "min(peak, intensity x bandwidth)"),
    Column("limited_by", "text", "memory iff the intensity is below the ridge"),
    Column("of_roof", "share", "least time over time"),
    Column("flag", "text"),
)
_ON_MATRIX_UNITS = {"matmul", "convolution", "attention"}


@dataclass(frozen=True, slots=True)
class Roof:
    """peak_flop_s None: the device states no peak for this arithmetic."""

    peak_flop_s: float | None
    bandwidth_b_s: float

    @property
    def ridge(self) -> float | None:
        """Intensity in FLOP per byte at which the two limits meet."""
        return self.peak_flop_s / self.bandwidth_b_s if self.peak_flop_s else None

    def least(self, flop: float, moved_bytes: float) -> tuple[float | None, Limit]:
        """Least seconds for the work and what sets them; None without a peak for its arithmetic."""
        if flop == moved_bytes == 0:
            return 0.0, "no work"
        if flop and not self.peak_flop_s:
            return None, "unknown"
        compute = flop / self.peak_flop_s if flop and self.peak_flop_s else 0.0
        memory = moved_bytes / self.bandwidth_b_s
        return max(compute, memory), "compute" if compute >= memory else "memory"


@dataclass(frozen=True, slots=True)
class Place:
    """Work under a roof. intensity: FLOP per byte. attained_flop_s, attained_b_s: what was done, over its time.

    roof_flop_s: min(peak, intensity x bandwidth), the most that could be. least_s: least time. share: least time over
    time taken; 1 is the roof. flag: why this cannot be, in words, when the share passes `TOLERANCE`.
    """

    intensity: float | None
    attained_flop_s: float | None
    attained_b_s: float | None
    roof_flop_s: float | None
    least_s: float | None
    limited_by: Limit
    share: float | None
    flag: str | None

    @property
    def cells(self) -> tuple[Cell, Cell, Cell, Cell]:
        """The last columns of a roofline table, `ROOF_COLUMNS`."""
        return self.roof_flop_s, self.limited_by, self.share, self.flag


def roof(device: Device, category: str, dtype: str) -> Roof:
    """The roof over one kind of work: matrix products run on units of their own, all else on the ordinary lanes."""
    tables = [device.peak_flop_s] if category in _ON_MATRIX_UNITS else [device.vector_flop_s, device.peak_flop_s]
    peaks = [table[key].value for table in tables for key in (dtype, "float32") if key in table]
    return Roof(peaks[0] if peaks else None, device.memory_bandwidth_b_s.value)


def place(flop: float | None, moved_bytes: float | None, seconds: float, under: Roof | None) -> Place:
    """Where work that took `seconds` lies; what is not known of it is None. under None: no device is known."""
    rates = [x / seconds if x is not None and seconds > 0 else None for x in (flop, moved_bytes)]
    intensity = flop / moved_bytes if flop is not None and moved_bytes else None
    least, limit = (None, "unknown") if under is None or flop is None or moved_bytes is None else under.least(
        flop, moved_bytes
    )  # fmt: skip
    share = least / seconds if least is not None and seconds > 0 else None
    most = None
    if under is not None and under.peak_flop_s and intensity is not None:
        most = min(under.peak_flop_s, intensity * under.bandwidth_b_s)
    return Place(intensity, rates[0], rates[1], most, least, limit, share, _flag(share, limit))


def _flag(share: float | None, limit: Limit) -> str | None:
    if share is None or share <= TOLERANCE:
        return None
    if limit == "compute":
        return "above the peak: the device's peak is too low"
    return "above the memory roof: read from cache, or the device's bandwidth is too low"
