"""Our VAE encoder is diffusers' `AutoencoderKL.encode`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.export.graph.master import export_master

from ...fixtures.compare import relative_error
from ...fixtures.networks import VaePair, adopt, vae_pair
from ...fixtures.onnx_run import run_onnx
from ...fixtures.wide_vae import widened
from ...tolerances import MODEL_RELATIVE


def encoder_of(pair: VaePair, weights: Any = None) -> Any:
    return adopt(VaeEncoder(pair.architecture), pair.theirs.state_dict() if weights is None else weights)


@pytest.fixture
def pair() -> VaePair:
    torch.manual_seed(4)
    return vae_pair()


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 40, 56)])
def test_mean_and_variance_are_those_of_diffusers(pair: VaePair, batch: int, height: int, width: int) -> None:
    image = torch.rand(batch, 3, height, width) * 2 - 1
    mean, logvar = encoder_of(pair)(image)
    theirs = pair.theirs.encode(image).latent_dist
    assert mean.shape == logvar.shape == (batch, 4, height // 8, width // 8)
    assert relative_error(mean, theirs.mean) < MODEL_RELATIVE
    assert relative_error(logvar, theirs.logvar) < MODEL_RELATIVE


def test_numbers_beyond_half_s_range_are_the_same_too(pair: VaePair) -> None:
    """A stream 4096 times as large, as SDXL's own VAE has it."""
    wide = widened(pair.theirs.state_dict(), 4096.0)
    pair.theirs.load_state_dict(wide)
    image = torch.rand(1, 3, 64, 48) * 2 - 1
    mean, logvar = encoder_of(pair, wide)(image)
    theirs = pair.theirs.encode(image).latent_dist
    assert relative_error(mean, theirs.mean) < MODEL_RELATIVE
    assert relative_error(logvar, theirs.logvar) < MODEL_RELATIVE


def test_the_parameters_are_the_encoder_s_half_of_diffusers(pair: VaePair) -> None:
    theirs = {n for n in pair.theirs.state_dict() if n.startswith(("encoder.", "quant_conv."))}
    assert set(encoder_of(pair).state_dict()) == theirs


def test_its_graph_gives_the_same(pair: VaePair, tmp_path: Path) -> None:
    ours, image = encoder_of(pair), torch.rand(2, 3, 40, 48) * 2 - 1
    master = export_master("vae_encoder", lambda: VaeEncoder(pair.architecture), pair.architecture.encoder())
    mean, logvar = run_onnx(master, ours.state_dict(), {"image": image}, tmp_path)
    for found, wanted in zip((mean, logvar), ours(image), strict=True):
        assert relative_error(torch.from_numpy(found), wanted) < MODEL_RELATIVE
