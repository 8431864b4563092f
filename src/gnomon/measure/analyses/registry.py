"""All analyses in the order in which they are told: the fifteen of XSP, then those of Benanza, DLBricks and TrIMS."""

from collections.abc import Iterable
from types import ModuleType

from gnomon.core.errors import UnknownName, did_you_mean
from gnomon.measure.analyses import (
    batch_size,
    cold_start,
    composition,
    device_time,
    ideal_latency,
    kernel_names,
    kernel_roofline,
    kernel_table,
    layer_kernels,
    layer_latency,
    layer_memory,
    layer_roofline,
    layer_table,
    layer_types,
    layer_work,
    level_overhead,
    model_roofline,
    type_latency,
    type_memory,
)
from gnomon.measure.analyses.analysis import Analysis, Form
from gnomon.measure.analyses.subject import Subject

ALL = "all"
_MODULES: tuple[ModuleType, ...] = (
    batch_size, layer_table, layer_latency, layer_memory, layer_types, type_latency, type_memory, kernel_table,
    kernel_roofline, kernel_names, layer_kernels, layer_work, device_time, layer_roofline, model_roofline,
    ideal_latency, composition, cold_start, level_overhead,
)  # fmt: skip
FORMS: dict[str, Form] = {module.FORM.name: module.FORM for module in _MODULES}
_BY_NAME = {module.FORM.name: module for module in _MODULES}


def chosen(names: Iterable[str]) -> list[str]:
    """The analyses asked for, each once; 'all' is every one, and A1 to A15 are known by their numbers too.

    Raises UnknownName with the nearest name.
    """
    numbers = {form.title.split()[0].lower(): name for name, form in FORMS.items() if form.title[0] == "A"}
    found: dict[str, None] = {}
    for name in names:
        if name == ALL:
            found |= dict.fromkeys(FORMS)
        elif name in FORMS or name.lower() in numbers:
            found[name if name in FORMS else numbers[name.lower()]] = None
        else:
            raise UnknownName(
                f"no analysis is called {name!r}.{did_you_mean(name, FORMS)} Known: {', '.join(FORMS)}, {ALL}"
            )
    return list(found)


def analyze(subject: Subject, name: str) -> Analysis:
    """The answer of one analysis; where it cannot be given, `missing` says why. Raises UnknownName."""
    (known,) = chosen([name])
    answer: Analysis = _BY_NAME[known].analyze(subject)
    return answer
