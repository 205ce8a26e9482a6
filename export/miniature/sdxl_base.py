"""The base: U-Net and both text encoders, trained together over all noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from .batches import Batch, draw_batch
from .latents import Bucket
from .noise import STEPS, LevelShares, min_snr_weight
from .text import LENGTH, encode_base, padding_mask, share_padding_positions, used_length
from .trainer import step_generator

# Nearly all positions of a caption are padding. The context is cut to those that captions use until this progress, then
# the rest of the run sees all 77 as the pipelines do: on a CPU the cut doubles the samples per second.
SHORT_UNTIL: Final = 0.9
# The last fifth of the noise levels is the refiner's work, so the base spends less of its samples there.
LEVELS: Final[LevelShares] = ((0.0, 0), (0.08, 200), (1.0, STEPS))


def plain_attention(modules: nn.ModuleDict) -> None:
    """Explicit attention for training on a CPU: with few tokens the fused kernel's backward pass is the slower one."""
    for module in modules.values():
        if isinstance(module, UNet2DConditionModel):
            module.set_attn_processor(AttnProcessor())
        else:
            cast(CLIPTextModel, module).set_attn_implementation("eager")


class BaseLoss:
    """The loss of one step: epsilon prediction, min-SNR weighted, with dropped captions as zeros."""

    def __init__(
        self, modules: nn.ModuleDict, buckets: Sequence[Bucket], *, batch: int, seed: int, device: torch.device
    ) -> None:
        self.modules = modules
        self.buckets = buckets
        self.batch = batch
        self.seed = seed
        self.device = device
        end = int(cast(CLIPTextModel, modules["text_encoder"]).config.eos_token_id)
        used = max(used_length(bucket.tokens, end) for bucket in buckets)
        self.short = min(LENGTH, -(-(used + 1) // 8) * 8)

    def length(self, progress: float) -> int:
        """How many positions of the context a step at this progress uses."""
        return self.short if progress < SHORT_UNTIL else LENGTH

    def __call__(self, draw: int, progress: float) -> Tensor:
        """The loss of the draw's batch."""
        generator = step_generator(self.seed, draw)
        batch = draw_batch(self.buckets, self.batch, LEVELS, generator, self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            prediction = predict_base(self.modules, batch, self.length(progress))
        error = (prediction.float() - batch.noise).square().mean((1, 2, 3))
        return (error * min_snr_weight(batch.alpha_bar)).mean()

    def after_step(self, progress: float) -> None:
        """Keep the embeddings of positions that are still cut off equal to the last one that is trained."""
        length = self.length(progress)
        if length < LENGTH:
            for name in ("text_encoder", "text_encoder_2"):
                share_padding_positions(self.modules[name], length)


def predict_base(modules: nn.ModuleDict, batch: Batch, length: int = LENGTH) -> Tensor:
    """The base's noise prediction for a batch, with the context cut to `length` positions."""
    context, pooled = encode_base(
        modules["text_encoder"],
        modules["text_encoder_2"],
        batch.tokens[:, :length],
        batch.tokens_2[:, :length],
    )
    # What the pipeline does for an empty prompt (force_zeros_for_empty_prompt).
    context = context.masked_fill(batch.dropped[:, None, None], 0)
    pooled = pooled.masked_fill(batch.dropped[:, None], 0)
    mask = padding_mask(len(context), length)
    output: Tensor = modules["unet"](
        batch.noisy,
        batch.timesteps,
        encoder_hidden_states=context,
        encoder_attention_mask=None if mask is None else mask.to(context.device),
        added_cond_kwargs={"text_embeds": pooled, "time_ids": batch.time_ids},
    ).sample
    return output
