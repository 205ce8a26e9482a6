"""A vocabulary of coloured squares, and models of the miniature's shape with widths of a toy."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from pocketxl.export.miniature.models import Miniature, TextShape, UNetShape
from pocketxl.export.miniature.vocabulary import Emoji


@pytest.fixture
def vocabulary(tmp_path: Path) -> tuple[Emoji, ...]:
    """Three opaque squares: red, green and blue."""
    result = []
    for name, colour in (("ruby", (255, 0, 0)), ("leaf", (0, 255, 0)), ("sea", (0, 0, 255))):
        path = tmp_path / f"{name}.webp"
        Image.new("RGBA", (64, 64), (*colour, 255)).save(path, lossless=True)
        result.append(Emoji(name=name, path=path))
    return tuple(result)


@pytest.fixture
def toy() -> Miniature:
    """A miniature of the miniature."""
    return Miniature(
        vocabulary_size=600,
        text=TextShape(width=16, layers=2, activation="quick_gelu"),
        text_2=TextShape(width=24, layers=2, activation="gelu"),
        base=UNetShape(channels=(16, 32, 32), depths=(0, 1, 2), norm_groups=8),
        refiner=UNetShape(channels=(16, 32, 32), depths=(0, 1, 0), norm_groups=8),
        size_embedding=8,
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
