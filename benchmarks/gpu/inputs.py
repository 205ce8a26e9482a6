"""What a case hands to every system: the same numbers, rounded to float16 once, so that no system rounds them anew."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pocketxl.engine.architecture import SizeIds

from .cases import STEPS, Case
from .networks import Network

TOKENS: Final = 77
SCORE: Final = 6.0
"""The aesthetic score that diffusers tells a refiner."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Tensors on the network's device, all float32.

    `latents [batch, 4, h, w]`; the rest is a U-Net's: `prompt_embeds [batch, tokens, d]`,
    `pooled_prompt_embeds [batch, pooled]`, `time_ids [batch, ids]`, `timesteps [steps]`.
    """

    latents: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    time_ids: Tensor
    timesteps: Tensor


def inputs_of(case: Case, network: Network) -> Inputs:
    """The inputs of a case, the same in every run."""
    random = torch.Generator(network.device).manual_seed(case.batch * 10_000 + case.size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=network.device).half().float()

    latents = normal(case.batch, 4, case.size // 8, case.size // 8)
    if network.name == "vae":
        nothing = torch.empty(0, device=network.device)
        return Inputs(
            latents=latents, prompt_embeds=nothing, pooled_prompt_embeds=nothing, time_ids=nothing, timesteps=nothing
        )
    a = network.architecture
    size = float(case.size)
    ids = [size, size, 0.0, 0.0, *([SCORE] if a.size_ids is SizeIds.SIZE_CROP_SCORE else [size, size])]
    timesteps = torch.linspace(999, 999 / STEPS, STEPS) if case.steps > 1 else torch.full((1,), 499.0)
    return Inputs(
        latents=latents,
        prompt_embeds=normal(case.batch, TOKENS, a.cross_attention_dim),
        pooled_prompt_embeds=normal(case.batch, a.pooled_dim),
        time_ids=torch.tensor([ids] * case.batch, device=network.device),
        timesteps=timesteps[: case.steps].round().to(network.device),
    )
