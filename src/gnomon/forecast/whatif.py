"""What if the linear layers' weights were sparse or of fewer bits? Measured on the device, or as its data sheet allows.

A speed-up is forecast in two cases only. Where a break-even table was measured on the device (`devices.breakeven`),
each layer takes the measured share of its dense time. Where the data sheet has a unit for it, the layer is priced on
that unit and the dense time stays the upper end of its interval, because a unit is a bound and no kernel:

- 2:4 sparsity, exactly 50 %, on NVIDIA's tensor cores since Ampere: half the products, weights at 9/16 of their size
  (half the values and two bits of index for each; Mishra et al. 2021, arXiv 2104.08378).
- 8 bits: products on the int8 unit, else the float8 unit.
- 4 bits, weights alone (GPTQ, Frantar et al. 2023, arXiv 2210.17323): products in 16 bits, weights read at 4 bits and
  one 16-bit scale for 128 of them. Faster only where reading weights is what takes the time, as in decoding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gnomon.core.errors import UsageError
from gnomon.core.units import format_bytes
from gnomon.devices.breakeven import BreakEven
from gnomon.devices.device import Device
from gnomon.forecast.predict import Forecaster
from gnomon.forecast.predictors import Predictor
from gnomon.forecast.price import Price
from gnomon.forecast.record import Estimate, Forecast
from gnomon.forecast.work import Work
from gnomon.workload.graph import ITEM_BYTES, OpGraph

_STRUCTURED = ("Ampere", "Ada", "Hopper", "Blackwell")  # NVIDIA's tensor cores that multiply 2:4 sparse weights
_STRUCTURED_DTYPES = ("float16", "bfloat16", "tf32", "float8", "int8")
_STRUCTURED_BYTES = 9 / 16
_SCALE_BITS = 16 / 128
_MEASURE = "Measure a table there with: gnomon forecast break-even"

PriceAll = Callable[[Sequence[Work], Device], list[Price]]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change of all linear layers. sparsity: share of zero weights. bits: of a weight, instead of its dtype's.

    tables: device name -> what was measured there for this kind of change. Raises UsageError for a change that is none.
    """

    sparsity: float | None = None
    bits: int | None = None
    tables: Mapping[str, BreakEven] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.bits is None):
            raise UsageError("wanted one of --sparsity and --bits: their effects are not known together")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise UsageError(f"--sparsity: wanted a share between 0 and 1, got {self.sparsity:g}")
        if self.bits is not None and not 1 <= self.bits <= 16:
            raise UsageError(f"--bits: wanted 1 to 16, got {self.bits}")

    @property
    def title(self) -> str:
        return f"{self.sparsity:.0%} sparse weights" if self.sparsity is not None else f"{self.bits}-bit weights"

    def prices(self, works: Sequence[Work], device: Device, price: PriceAll) -> list[Price]:
        """Every operator's price with the change. Raises UsageError where its effect is neither measured nor stated."""
        dense = price(works, device)
        layers = [i for i, work in enumerate(works) if work.weight_bytes > 0]
        if not layers:
            return dense
        table = self.tables.get(device.name)
        if table is not None:
            changed = {i: _scaled(dense[i], table, works[i], self._level) for i in layers}
        else:
            cheaper = price([self._on_its_unit(works[i], device) for i in layers], device)
            changed = {i: _bounded(dense[i], one) for i, one in zip(layers, cheaper, strict=True)}
        return [changed.get(i, one) for i, one in enumerate(dense)]

    def remark(self, device: Device) -> str:
        """Where the effect comes from, for the warnings of a forecast."""
        table = self.tables.get(device.name)
        if table is not None:
            return f"{self.title}: by the table measured on it ({table.library}, {table.measured_at[:10]})"
        return f"{self.title}: at best, by its data sheet; the interval reaches up to the dense time"

    def weight_bytes(self, work: Work) -> float:
        """What a layer's weights take in memory."""
        item = _item_bytes(work.precision)
        if self.bits is not None:
            scales = _SCALE_BITS if self.bits < 8 else 0.0
            return work.weight_bytes * min(1.0, (self.bits + scales) / (8 * item))
        assert self.sparsity is not None
        if self.sparsity == 0.5:
            return work.weight_bytes * _STRUCTURED_BYTES
        return work.weight_bytes * min(1.0, (1 - self.sparsity) * (item + 4) / item)  # CSR: a 4-byte column each

    @property
    def _level(self) -> float:
        level = self.sparsity if self.sparsity is not None else self.bits
        assert level is not None
        return float(level)

    def _on_its_unit(self, work: Work, device: Device) -> Work:
        """The layer as the unit of the data sheet would run it."""
        saved = work.weight_bytes - self.weight_bytes(work)
        if self.sparsity is not None:
            _needs_structured_unit(device, self.sparsity, work.precision)
            shape = work.matmul and replace(work.matmul, k=max(1, work.matmul.k // 2))
            return replace(work, flop=(work.flop or 0) / 2, matmul=shape, moved_bytes=work.moved_bytes - saved,
                           weight_bytes=work.weight_bytes - saved)  # fmt: skip
        if device.kind == "cpu" or self.bits not in (8, 4):
            raise UsageError(
                f"{device.name}: no speed-up of {self.title} is known. {_MEASURE}, or take 8 or 4 on a GPU"
            )
        if self.bits == 4:
            if work.precision not in ("float16", "bfloat16"):
                raise UsageError(
                    f"4-bit weights are multiplied in 16 bits, not in {work.precision}. Add --dtype bfloat16"
                )
            return replace(work, moved_bytes=work.moved_bytes - saved, weight_bytes=work.weight_bytes - saved)
        unit = next((name for name in ("int8", "float8") if name in device.peak_flop_s), None)
        if unit is None:
            raise UsageError(f"{device.name} has no int8 and no float8 unit; its data sheet promises no gain of 8 bits")
        item = _item_bytes(work.precision)
        read = (work.moved_bytes - work.written_bytes) / item
        return replace(work, precision=unit, moved_bytes=read + work.written_bytes,
                       weight_bytes=work.weight_bytes / item)  # fmt: skip


class WhatIfForecaster(Forecaster):
    """A forecaster for the changed model. Arguments as for `Forecaster`; only inference is known."""

    def __init__(self, graph: OpGraph, what_if: WhatIf, **arguments: Any) -> None:
        if graph.mode != "inference":
            raise UsageError(f"--sparsity and --bits are about inference; {graph.name} is a training step")
        super().__init__(graph, **arguments)
        if not any(work.weight_bytes > 0 for work in self._demands):
            raise UsageError(f"{graph.name} has no linear layer that --sparsity or --bits could change")
        self._what_if = what_if
        self._predictor = _Changed(self._predictor, what_if)
        saved = math.fsum(w.weight_bytes - what_if.weight_bytes(w) for w in self._demands if w.weight_bytes)
        self._peak_bytes -= round(saved)

    def on(self, device: Device) -> Forecast:
        """As for any forecaster. Raises UsageError where the effect is neither measured nor stated by a data sheet."""
        found = super().on(device)
        saved = f"; weights and all take {format_bytes(self._peak_bytes)}"
        return replace(found, warnings=(*found.warnings, self._what_if.remark(device) + saved))


class _Changed:
    """A predictor of the changed model on top of one of the model as it is."""

    def __init__(self, base: Predictor, what_if: WhatIf) -> None:
        self._base, self._what_if = base, what_if
        self.name = f"{base.name}, {what_if.title}"

    def prices(self, works: Sequence[Work], device: Device) -> list[Price]:
        return self._what_if.prices(works, device, self._base.prices)

    def remarks(self, device: Device) -> list[str]:
        return self._base.remarks(device)

    def common_spread(self, device: Device) -> float:
        return self._base.common_spread(device)


def _item_bytes(precision: str) -> int:
    return 4 if precision == "tf32" else ITEM_BYTES.get(precision, 1)


def _needs_structured_unit(device: Device, sparsity: float, precision: str) -> None:
    family = (device.architecture.split() or [""])[0]
    if device.vendor != "NVIDIA" or family not in _STRUCTURED:
        raise UsageError(
            f"{device.name}: no speed-up of {sparsity:.0%} sparsity is known; its data sheet has no unit for it. "
            f"{_MEASURE}"
        )
    if sparsity != 0.5:
        raise UsageError(
            f"{device.name}: no speed-up of {sparsity:.0%} sparsity is known; its units multiply 2:4 sparse weights, "
            f"exactly 50 %. {_MEASURE}, or ask for --sparsity 0.5"
        )
    if precision not in _STRUCTURED_DTYPES:
        raise UsageError(
            f"{device.name} multiplies 2:4 sparse weights in {', '.join(_STRUCTURED_DTYPES)}, not in {precision}. "
            "Add --dtype bfloat16"
        )


def _scaled(dense: Price, table: BreakEven, work: Work, level: float) -> Price:
    """A layer's dense time times the measured ratio; both intervals count."""
    shape = work.matmul
    if shape is None:
        return dense
    ratio = table.ratio(shape.m * shape.batch, shape.n, shape.k, level)
    time = dense.time
    return dense._replace(
        time=Estimate(time.value_s * ratio.value, time.low_s * ratio.low, time.high_s * ratio.high)
    )  # fmt: skip


def _bounded(dense: Price, best: Price) -> Price:
    """At best what the unit allows, at worst what the dense layer takes."""
    return best._replace(
        time=Estimate(
            min(best.time.value_s, dense.time.value_s),
            min(best.time.low_s, dense.time.low_s),
            dense.time.high_s,
        )
    )  # fmt: skip
