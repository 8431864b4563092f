from collections.abc import Iterator

import pytest

from tests.kernels.interpreter import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Runs Triton kernels on the CPU, in a process of its own."""
    pytest.importorskip("triton")
    child = Interpreter()
    yield child
    child.close()
