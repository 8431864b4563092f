import pytest

from tests.report.example import make_examination


@pytest.fixture(scope="session")
def examination():
    """The made-up examination of the report's tests; records are frozen, so the tests may share it."""
    return make_examination()
