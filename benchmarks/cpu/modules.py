"""The checkpoint's networks as diffusers' own modules, with plain arrays for inputs: what the peers are made from."""

from typing import Any

import torch
from torch import Tensor, nn

from ..gpu.networks import Decoder
from .inputs import Feeds
from .job import Model, Network


class PlainUNet(nn.Module):
    """Diffusers' U-Net with every input by a name of its own, as exporters want it."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> Tensor:
        """Noise `[batch, 4, h, w]`."""
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        found = self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)
        return found[0]  # type: ignore[no-any-return]


def module_of(model: Model, network: Network, dtype: torch.dtype) -> nn.Module:
    """A U-Net with plain inputs, or the decoder of the VAE."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = model.folder(network)
    made = (
        Decoder(AutoencoderKL.from_pretrained(folder, torch_dtype=dtype))
        if network == "vae"
        else PlainUNet(UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype))
    )
    return made.eval().requires_grad_(False)


def in_half(model: Model, network: Network) -> bool:
    """Whether the checkpoint's own weights are in float16, so that storing them so loses nothing."""
    from safetensors import safe_open

    with safe_open(next(iter(sorted(model.folder(network).glob("*.safetensors")))), "pt") as file:
        return bool(file.get_slice(next(iter(file.keys()))).get_dtype() == "F16")


def tensors(feeds: Feeds, dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs in the module's own dtype."""
    return {name: torch.from_numpy(array).to(dtype) for name, array in feeds.items()}
