"""What an hour of each device costs, from a user's YAML file: `currency: USD` and `per_hour: {H100-SXM: 2.5}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gnomon.core.errors import GnomonError, UsageError
from gnomon.core.records import NOT_EMPTY, POSITIVE, StructureError, structure
from gnomon.devices import catalogue

_LARGEST_FILE = 100_000  # bytes


@dataclass(frozen=True, slots=True)
class Prices:
    """per_hour: device (any of its names; 'cpu': this machine) -> price. source: where they were read, and when."""

    currency: Annotated[str, NOT_EMPTY]
    per_hour: Annotated[Mapping[str, Annotated[float, POSITIVE]], NOT_EMPTY]
    source: str = ""


def load(path: Path) -> Prices:
    """The prices in a file, by the devices' full names.

    Raises UsageError naming file and key: what is no YAML, an unknown key or device, a price that is not positive, two
    prices for one device.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: wanted a file of prices, got one of {path.stat().st_size} bytes")
        document = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
        prices: Prices = structure(Prices, document)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Wanted a file of prices") from None
    except StructureError as error:
        raise UsageError("\n".join(f"{path}: {p.where}: {p.message}" for p in error.problems[:10])) from None
    except (YAMLError, ValueError, RecursionError) as error:
        what = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: wanted YAML 1.2 with 'currency' and 'per_hour', got: {what}") from None
    full: dict[str, float] = {}
    for name, price in prices.per_hour.items():
        try:
            known = name if name == "cpu" else catalogue.get(name).name
        except GnomonError as error:
            raise UsageError(f"{path}: per_hour.{name}: {error}") from None
        if known in full:
            raise UsageError(f"{path}: per_hour.{name}: {known} has two prices; keep one")
        full[known] = price
    return Prices(prices.currency, full, prices.source)
