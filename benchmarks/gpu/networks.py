"""The peers' networks as diffusers builds them from the public configurations, with random weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from pocketxl.engine.architecture import SizeIds, UNetArchitecture, VaeArchitecture
from pocketxl.export.checkpoint.configuration import JsonFile
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.checkpoint.vae_configuration import vae_architecture

from ..random_checkpoint import CONFIGS
from .cases import Name
from .weights import RandomWeights

FILES: Final[Mapping[Name, str]] = {
    "base": "base/unet/config.json",
    "refiner": "refiner/unet/config.json",
    "vae": "base/vae/config.json",
}
SIZE_IDS: Final[Mapping[Name, SizeIds]] = {
    "base": SizeIds.SIZE_CROP_TARGET,
    "refiner": SizeIds.SIZE_CROP_SCORE,
}
_NARROW: Final = {
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 16,
    "norm_num_groups": 8,
}
TINY: Final[Mapping[Name, Mapping[str, Any]]] = {
    "base": {
        **_NARROW,
        "block_out_channels": [64, 64, 128],
        "attention_head_dim": [1, 1, 2],
        "transformer_layers_per_block": [1, 1, 2],
        "projection_class_embeddings_input_dim": 32 + 6 * 16,
    },
    "refiner": {
        **_NARROW,
        "block_out_channels": [64, 64, 128, 128],
        "attention_head_dim": [1, 1, 2, 2],
        "transformer_layers_per_block": 1,
        "projection_class_embeddings_input_dim": 32 + 5 * 16,
    },
    "vae": {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
}
"""What is changed for a network of the same kind that a processor is done with at once."""


class Decoder(nn.Module):
    """The half of diffusers' `AutoencoderKL` that makes pictures, under the same state-dict names."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.post_quant_conv = autoencoder.post_quant_conv
        self.decoder = autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """`[batch, 4, h, w]`, already divided by the scaling factor → `[batch, 3, 8 h, 8 w]`."""
        return self.decoder(self.post_quant_conv(latents))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Network:
    """One of the networks; `tiny`: narrow, for a run without a GPU."""

    name: Name
    device: str
    tiny: bool = False

    @cached_property
    def config(self) -> dict[str, Any]:
        """Diffusers' configuration."""
        found = json.loads((CONFIGS / FILES[self.name]).read_text(encoding="utf-8"))
        return {**found, **(TINY[self.name] if self.tiny else {})}

    @cached_property
    def architecture(self) -> UNetArchitecture:
        """A U-Net's, as our modules take it."""
        return unet_architecture(self._file(), SIZE_IDS[self.name])

    @cached_property
    def vae_architecture(self) -> VaeArchitecture:
        """A VAE's."""
        return vae_architecture(self._file())

    @cached_property
    def weights(self) -> RandomWeights:
        """Its weights under diffusers' names."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self._empty().state_dict().items()}
        return RandomWeights(shapes=shapes, device=self.device)

    def module(self, dtype: torch.dtype) -> nn.Module:
        """Diffusers' module on the device, with weights that were rounded to float16 whatever `dtype` is."""
        module = self._empty()
        module.load_state_dict({name: self.weights.made(name).to(dtype) for name in self.weights.shapes}, assign=True)
        return module.eval().requires_grad_(False)

    def _file(self) -> JsonFile:
        return JsonFile(data=self.config, path=Path(FILES[self.name]))

    def _empty(self) -> nn.Module:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        with torch.device("meta"):
            if self.name == "vae":
                return Decoder(AutoencoderKL.from_config(self.config))
            module: nn.Module = UNet2DConditionModel.from_config(self.config)
            return module
