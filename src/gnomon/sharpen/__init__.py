"""Making a task faster without making it wrong: recipes that are applied, verified, measured again, and judged."""

from gnomon.core.rooms import make_callable

make_callable(__name__, "gnomon.sharpen.run:sharpen")
