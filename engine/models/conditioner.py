"""Everything in SDXL's U-Net that depends on prompt, sizes and timesteps alone, computed once per picture.

Exact, not an approximation: the U-Net's cross-attention keys and values are linear in the prompt embeddings, and its
ResNets see time only through a projection of (timestep, pooled prompt, size ids). Held to diffusers by
tests/engine/models/test_unet.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import UNetArchitecture, block_names


class Embedding(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, inputs: int, width: int, condition: int = 0) -> None:
        super().__init__()
        if condition:
            self.cond_proj = nn.Linear(condition, inputs, bias=False)
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` → `[..., width]`."""
        return self.linear_2(F.silu(self.linear_1(x)))  # type: ignore[no-any-return]


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Cosines, then sines of `x` at `width / 2` frequencies from 1 down to 1/10000: `[...]` → `[..., width]`.

    Computed in float32: float16 cannot hold a fractional timestep. Source: diffusers' `Timesteps` with
    `flip_sin_to_cos=True, downscale_freq_shift=0`.
    """
    half = width // 2
    # The order of operations is diffusers': a last-bit difference in a frequency grows a thousandfold at timestep 999.
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angles = x.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def guidance_embedding(guidance: Tensor, width: int) -> Tensor:
    """Sines, then cosines of 1000 times the guidance scale less one: `[batch]` → `[batch, width]`.

    Source: diffusers' `get_guidance_scale_embedding`, whose frequencies end at 1/10000, unlike those of `sinusoid`.
    """
    half = width // 2
    step = -(math.log(10000) / (half - 1))
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=guidance.device) * step)
    angles = (guidance.float() * 1000.0).unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Conditioner(nn.Module):
    """Prompt, sizes and all timesteps → every step's time vectors and every cross-attention's keys and values."""

    def __init__(self, architecture: UNetArchitecture, *, control_types: int = 0) -> None:
        """`control_types`: how many kinds of hints a ControlNet-Union is told of; 0 for every other model."""
        super().__init__()
        a = architecture
        self.time_width, self.id_width = a.block_out_channels[0], a.addition_time_embed_dim
        self.guidance_width = a.time_cond_proj_dim
        self.time_embedding = Embedding(self.time_width, a.time_embed_dim, a.time_cond_proj_dim)
        if a.size_ids is not None:
            self.add_embedding = Embedding(a.projection_class_embeddings_input_dim, a.time_embed_dim)
        if control_types:
            self.control_add_embedding = Embedding(control_types * a.addition_time_embed_dim, a.time_embed_dim)
        self.time_projections = [f"{resnet.name}.time_emb_proj" for resnet in a.resnets()]
        for name, width in zip(self.time_projections, a.resnet_widths(), strict=True):
            _place(self, name, nn.Linear(a.time_embed_dim, width))
        blocks = zip(block_names(a), a.attention_widths(), strict=True)
        self.key_values = [(f"{name}.attn2.{part}", width) for name, width in blocks for part in ("to_k", "to_v")]
        for name, width in self.key_values:
            _place(self, name, nn.Linear(a.cross_attention_dim, width, bias=False))

    def forward(
        self,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        timesteps: Tensor | None = None,
        guidance: Tensor | None = None,
        control_type: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """`[batch, tokens, d]`, `[batch, pooled]`, `[batch, ids]`, `[steps]` → time vectors, key 0, value 0, key 1, ….

        Pooled text and size ids are None for a model without them. `guidance`: `[batch]`, the scale less one, for a
        model that takes it; `control_type`: `[batch, kinds]` of 0 and 1, for a ControlNet-Union.

        The time vectors are `[steps, batch, sum(resnet_widths)]`, with one row where nothing but the timestep is in
        them; keys and values `[batch, tokens, width]`.
        Inputs of another float dtype than the weights are cast to theirs, timesteps and ids only once embedded.
        """
        dtype = self.time_embedding.linear_1.weight.dtype
        assert timesteps is not None
        prompt_embeds, added = prompt_embeds.to(dtype), None
        if pooled_prompt_embeds is not None and time_ids is not None:
            pooled_prompt_embeds = pooled_prompt_embeds.to(dtype)
            ids = sinusoid(time_ids, self.id_width).flatten(1).to(dtype)
            added = self.add_embedding(torch.cat([pooled_prompt_embeds, ids], dim=1))
        if control_type is not None:
            added = added + self.control_add_embedding(sinusoid(control_type, self.id_width).flatten(1).to(dtype))
        times = sinusoid(timesteps, self.time_width).to(dtype).unsqueeze(1)
        if guidance is not None:
            scale = guidance_embedding(guidance, self.guidance_width).to(dtype)
            times = times + self.time_embedding.cond_proj(scale).unsqueeze(0)
        embedding = self.time_embedding(times)
        embedding = F.silu(embedding if added is None else embedding + added.unsqueeze(0))
        vectors = torch.cat([self.get_submodule(name)(embedding) for name in self.time_projections], dim=2)
        return (vectors, *(self.get_submodule(name)(prompt_embeds) for name, _ in self.key_values))


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` under a dotted path, so that the state dict has diffusers' names without diffusers' tree."""
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(leaf, module)
