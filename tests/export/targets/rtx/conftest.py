"""Engines that several tests read: each takes seconds to build, so there is one of each."""

import pytest
import torch

from pocketxl.engine.models.unet import UNet

from ....fixtures.smallest import SMALLEST
from .lowering import Built, build


@pytest.fixture(scope="session")
def unet_for_all(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The smallest U-Net, for every architecture."""
    pytest.importorskip("tensorrt_rtx")
    torch.manual_seed(0)
    module, out = UNet(SMALLEST), tmp_path_factory.mktemp("unet")
    return build("base/unet", module, lambda: UNet(SMALLEST), SMALLEST.unet(), out, "rtx")
