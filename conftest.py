"""The Python blocks of README.md and docs/ are run as tests."""

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"], fixtures=["home_of_examples"]
).pytest()


@pytest.fixture(scope="session")
def home_of_examples(tmp_path_factory):
    """No example writes into the store or the caches of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNOMON_HOME", str(tmp_path_factory.mktemp("gnomon-home")))
        patch.delenv("GNOMON_STORE", raising=False)
        yield
