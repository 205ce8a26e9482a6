"""The VAE: SDXL's kind, 1.7 M parameters, learned from the pictures on coloured backgrounds.

The shipped VAE came from this stage: 85 minutes of two CPU cores, 13.7 k steps, 29.2 dB.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from .budget import Budget
from .captions import COLOURS
from .trainer import Trainer, TrainingSettings, step_generator
from .vocabulary import Emoji

_log = logging.getLogger(__name__)
SMALL_UNTIL: Final = 0.75  # of the run on half-size windows, four times as many; whole pictures after that
LATENT_NOISE: Final = 0.05  # what the decoder has to bear


def autoencoder(resolution: int) -> AutoencoderKL:
    """An untrained VAE: 1/8 scale, 4 channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=resolution,
        scaling_factor=1.0,
    )


class AutoencoderLoss:
    """L1, L2 and gradient differences of the reconstruction; no adversary, so no detail is invented."""

    def __init__(
        self, modules: nn.ModuleDict, vocabulary: Sequence[Emoji], *, resolution: int, batch: int, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.modules = modules
        self.resolution = resolution
        self.batch = batch
        self.seed = seed
        self.device = device
        self.pictures = torch.from_numpy(np.stack([_read(emoji.path, resolution) for emoji in vocabulary]))
        self.colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)

    def __call__(self, draw: int, progress: float) -> Tensor:
        """The loss of the draw's batch: small windows first, whole pictures near the end."""
        whole = progress >= SMALL_UNTIL
        generator = step_generator(self.seed, draw)
        # Windows of 48 pixels and less fail: on flat background the group norms see a constant.
        side = self.resolution if whole else self.resolution // 2
        pictures = self.draw(max(1, self.batch // 2) if whole else self.batch, side, generator).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            posterior = self.modules["vae"].encode(pictures).latent_dist  # type: ignore[operator]
            spread = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
            made = self.modules["vae"].decode(posterior.mean + LATENT_NOISE * spread).sample  # type: ignore[operator]
        made = made.float()
        difference = pictures - made
        square = difference.square().mean()
        edges = sum(step_.abs().mean() for step_ in (difference.diff(dim=-1), difference.diff(dim=-2)))
        size = posterior.mean.float().square().mean()
        edge_weight = 0.5 if progress > 0.4 else 0.1
        loss: Tensor = 0.6 * difference.abs().mean() + 1.3 * square + edge_weight * edges + 2e-3 * size
        return loss

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Pictures on random backgrounds in [-1, 1]: scaled, flipped, cut to side x side."""
        rows = torch.randint(len(self.pictures), (count,), generator=generator)
        rgba = self.pictures[rows].float()
        alpha = rgba[..., 3:] / 255
        colour = self.colours[torch.randint(len(self.colours), (count,), generator=generator)][:, None, None]
        pictures = ((rgba[..., :3] * alpha + colour * (1 - alpha)) / 127.5 - 1).permute(0, 3, 1, 2)
        if torch.rand((), generator=generator) < 0.5:
            pictures = pictures.flip(3)
        if side < self.resolution:
            scaled = side + side // 4 * int(torch.randint(3, (), generator=generator))
            pictures = F.interpolate(pictures, size=(scaled, scaled), mode="bilinear", antialias=True)
            top, left = torch.randint(scaled - side + 1, (2,), generator=generator).tolist()
            pictures = pictures[:, :, top : top + side, left : left + side]
        return pictures.contiguous(memory_format=torch.channels_last)


def settle_variance(vae: nn.Module) -> None:
    """Let the encoder tell the variance of the noise that the decoder was trained to bear.

    The loss looks at means alone, so that what the other half of the outputs says is chance; whoever samples latents of
    a picture, as diffusers does, would get noise.
    """
    layer = vae.quant_conv
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    with torch.no_grad():
        half = layer.out_channels // 2
        layer.weight[half:] = 0
        layer.bias[half:] = 2 * math.log(LATENT_NOISE)


def train_autoencoder(
    vocabulary: Sequence[Emoji], folder: Path, work: Path, *, resolution: int, minutes: float, seed: int,
    device: torch.device, batch: int = 12,
) -> bool:  # fmt: skip
    """Train the VAE, set its scaling factor from the deviation of its latents, write `vae/`; True when finished."""
    vae = autoencoder(resolution).to(device, memory_format=torch.channels_last)
    modules = nn.ModuleDict({"vae": vae})
    loss = AutoencoderLoss(modules, vocabulary, resolution=resolution, batch=batch, seed=seed, device=device)
    settings = TrainingSettings(batch=batch, warm_up=50, ema_decay=0.999, seed=seed)
    trainer = Trainer(modules, loss, Budget(minutes=minutes), settings, work / "vae.pt")
    if not trainer.run():
        return False
    trainer.finish()
    settle_variance(vae)
    with torch.no_grad():
        sample = torch.cat(
            [
                vae.encode(loss.draw(32, resolution, step_generator(seed + 1, index)).to(device)).latent_dist.mean
                for index in range(8)
            ]
        )
    vae.register_to_config(scaling_factor=1 / float(sample.std()))
    _log.info("scaling factor %.4f", vae.config.scaling_factor)
    vae.save_pretrained(str(folder / "vae"))
    return True


def _read(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS))
