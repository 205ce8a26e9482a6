"""Our modules of ESRGAN's family are those of the papers, and of spandrel, which runs the community's files."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pocketxl.engine.models.upscaler import upscaler
from pocketxl.engine.upscaler import UpscalerArchitecture, UpscalerKind

from ...fixtures.compare import relative_error
from ...fixtures.networks import adopt
from ...fixtures.upscalers import HAVE_SPANDREL, compact, esrgan, real_esrgan_names, spandrel_s
from ...tolerances import MODEL_RELATIVE


@pytest.mark.parametrize(
    ("scale", "unshuffle", "plus"),
    [(4, 1, False), (1, 1, False), (8, 1, False), (2, 1, True), (4, 2, False), (4, 4, False)],
    ids=["ESRGAN 4x", "1x", "8x", "ESRGAN+", "Real-ESRGAN 2x", "Real-ESRGAN 1x"],
)
def test_esrgan_s_network(scale: int, unshuffle: int, plus: bool) -> None:
    channels: dict[str, Any] = {"in_nc": 3 * unshuffle**2, "shuffle_factor": unshuffle if unshuffle > 1 else None}
    theirs = esrgan(scale=scale, plus=plus, **channels)
    numbers = UpscalerArchitecture(
        kind=UpscalerKind.ESRGAN, scale=scale, width=16, blocks=2, growth=32, plus=plus, unshuffle=unshuffle
    )
    ours = adopt(upscaler(numbers), real_esrgan_names(theirs.state_dict()))
    pixels = torch.rand(2, 3, 8, 12)
    if HAVE_SPANDREL:
        community = spandrel_s("ESRGAN", theirs, scale=scale, plus=plus, num_filters=16, num_blocks=2, **channels)
        assert relative_error(theirs(pixels), community(pixels)) < MODEL_RELATIVE
    made = ours(F.pixel_unshuffle(pixels, unshuffle))
    assert made.shape == (2, 3, 8 * numbers.factor, 12 * numbers.factor)
    assert relative_error(made, theirs(pixels)) < MODEL_RELATIVE


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_compact_network(scale: int) -> None:
    theirs = compact(upscale=scale)
    if HAVE_SPANDREL:
        community = spandrel_s("Compact", theirs, num_feat=12, num_conv=3, upscale=scale)
        pixels = torch.rand(2, 3, 8, 12)
        assert relative_error(theirs(pixels), community(pixels)) < MODEL_RELATIVE
    ours = adopt(
        upscaler(UpscalerArchitecture(kind=UpscalerKind.COMPACT, scale=scale, width=12, blocks=3)), theirs.state_dict()
    )
    pixels = torch.rand(2, 3, 8, 12)
    assert relative_error(ours(pixels), theirs(pixels)) < MODEL_RELATIVE
