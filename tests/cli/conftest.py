from tests.report.conftest import examination  # noqa: F401 - a fixture
