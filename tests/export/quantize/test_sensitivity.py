"""What a layer's error counts: its branch's share of the stream."""

import numpy as np
import pytest

from pocketxl.export.quantize.calibration import Calibration, LayerStatistics
from pocketxl.export.quantize.sensitivity import share

from ...fixtures.calibration import shown

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.3"


def of_energy(energy: float) -> LayerStatistics:
    return shown(np.ones((2, 3), np.float32), np.full((2, 3), np.sqrt(energy), np.float32))


SEEN = Calibration(
    layers={
        f"{BLOCK}.ff.net.2": of_energy(1.0),
        f"{BLOCK}.attn1.to_out.0": of_energy(3.0),
        "down_blocks.1.attentions.0.proj_out": of_energy(1.0),
        "down_blocks.1.resnets.0.conv2": of_energy(0.5),
    },
    streams={
        f"{BLOCK}.norm3": np.array([3.0, 5.0], np.float32),  # 4 on average
        f"{BLOCK}.norm1": np.array([1.0], np.float32),
        "down_blocks.1.attentions.0.norm": np.array([9.0], np.float32),
        "down_blocks.1.resnets.0.norm1": np.array([0.5], np.float32),
    },
)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (f"{BLOCK}.ff.net.0.proj", 1 / 5 * 1 / 10),
        (f"{BLOCK}.ff.net.2", 1 / 5 * 1 / 10),
        (f"{BLOCK}.attn1.to_q", 3 / 4 * 1 / 10),
        ("down_blocks.1.attentions.0.proj_in", 1 / 10),
        ("down_blocks.1.resnets.0.conv1", 1 / 2),
        ("down_blocks.1.resnets.0.conv_shortcut", 1),
        ("down_blocks.1.downsamplers.0.conv", 1),
        (f"{BLOCK}.attn2.to_q", 1 / 10),  # its own branch was not watched
        ("conv_in", 1),
    ],
)
def test_shares(layer: str, expected: float) -> None:
    assert share(layer, SEEN) == pytest.approx(expected, rel=1e-5)
