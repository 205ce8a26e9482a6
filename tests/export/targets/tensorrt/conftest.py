"""TensorRT's stand-in."""

import pytest

from ....fixtures.tensorrt_full_builds import install
from ....fixtures.tensorrt_full_on_host import FullLibrary


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FullLibrary:
    """Installed."""
    return install(monkeypatch)
