"""The page's templates. Everything that enters them is escaped; SVG drawn by this room is the one exception."""

import functools
from typing import Any

import jinja2

from gnomon.measure.analyses.join import module_pattern
from gnomon.report import text


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gnomon.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain = (text.seconds, text.byte_count, text.flop_count, text.per_second, text.percent, text.times, text.number)
    for function in (*plain, text.fact, text.shape, text.shapes, text.interval, text.estimate, text.ratio, text.share):
        environment.filters[function.__name__] = function
    environment.filters["modules"] = module_pattern
    return environment


def render_template(name: str, **values: Any) -> str:
    """A template of this folder, filled in. Raises jinja2.UndefinedError for a value that was not given."""
    return _environment().get_template(name).render(**values)
