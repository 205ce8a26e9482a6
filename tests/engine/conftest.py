"""The tiny engine opened, and diffusers with the same weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pocketxl.engine.pipeline import Pipeline

if TYPE_CHECKING:
    from ..fixtures.experts import Experts


@pytest.fixture(scope="session")
def pipe(tiny_engine: Path) -> Iterator[Pipeline]:
    """Base and refiner, fp32, everything kept loaded."""
    with Pipeline.load(tiny_engine, threads=1) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def experts(tiny_folders: dict[str, Path]) -> "Experts":
    """diffusers' pipelines."""
    from ..fixtures.experts import Experts

    return Experts(tiny_folders)
