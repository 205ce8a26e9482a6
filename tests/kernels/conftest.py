"""What tests of kernels ask for by name."""

from collections.abc import Iterator

import pytest

from ..fixtures.gpu_arithmetic import gpu_arithmetic
from ..fixtures.kernels import DEVICE


@pytest.fixture(params=["rounded", "contracted"] if DEVICE == "cpu" else ["gpu"])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a CPU a test runs twice: as the interpreter computes, and with the freedoms that a GPU's compiler takes."""
    if request.param == "contracted":
        with gpu_arithmetic(ulps=2):
            yield
    else:
        yield
