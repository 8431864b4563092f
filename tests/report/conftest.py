import pytest

from gnomon.report import html

from .example import make_examination


@pytest.fixture(scope="session")
def examination():
    """The made-up examination; records are frozen, so the tests may share it."""
    return make_examination()


@pytest.fixture(scope="session")
def page(examination):
    """Its report, drawn once."""
    return html.render(examination)
