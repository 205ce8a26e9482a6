"""How diffusers' modules are called with a case's inputs."""

import torch
from torch import Tensor, nn

from .inputs import Inputs


class Calls:
    """Predictions of one of diffusers' modules in `dtype`, for float32 latents; the result is float32 too."""

    def __init__(self, module: nn.Module, inputs: Inputs, dtype: torch.dtype) -> None:
        self._module, self._dtype = module, dtype
        self._form = torch.channels_last if dtype is torch.float16 else torch.contiguous_format
        self._prompt = inputs.prompt_embeds.to(dtype)
        self._added = {
            "text_embeds": inputs.pooled_prompt_embeds.to(dtype),
            "time_ids": inputs.time_ids.to(dtype),
        }
        # Each in memory of its own: a compiler takes a place inside a tensor for another kind of input.
        self._timesteps: list[Tensor] = [timestep.clone() for timestep in inputs.timesteps] or [inputs.timesteps]

    def timestep(self, step: int) -> Tensor:
        """That of a step, a scalar; empty for a VAE."""
        return self._timesteps[step]

    def __call__(self, latents: Tensor, step: int) -> Tensor:
        """The prediction of a U-Net at a step, or a VAE's picture."""
        return self.at(latents, self.timestep(step))

    def at(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The same at a timestep."""
        given = latents.to(self._dtype, memory_format=self._form)
        if not timestep.numel():
            picture: Tensor = self._module(given)
            return picture.float()
        found: Tensor = self._module(given, timestep, self._prompt, added_cond_kwargs=self._added, return_dict=False)[0]
        return found.float()
