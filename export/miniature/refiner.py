"""The refiner: a small U-Net for the last fifth of the noise levels, reading the base's second encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from .batches import Batch, draw_batch
from .latents import Bucket
from .noise import LevelShares, alphas_cumprod, noise_ratio
from .text import encode_refiner
from .trainer import step_generator

# Used below 200; a little more is learned so that its first step is not at the edge.
LEVELS: Final[LevelShares] = ((0.0, 0), (1.0, 250))
NEGATIVE_SCORE: Final = 2.5  # the pipelines' negative aesthetic score


def start_from_base(refiner: nn.Module, base: nn.Module, first_width: int) -> int:
    """Copy what the two U-Nets have in common; return how many tensors. What the refiner lacks stays as it is.

    Near the picture both do the same work, so a refiner that begins there needs a fraction of the steps. Of the base's
    context it reads the second encoder's columns only (from `first_width` on), of its added embedding the pooled text
    and the ids before the last.
    """
    mine, theirs = refiner.state_dict(), base.state_dict()
    copied = 0
    for name, tensor in mine.items():
        source = theirs.get(name)
        if source is None:
            continue
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            source = source[:, first_width:]
        if source.shape == tensor.shape:
            tensor.copy_(source)
            copied += 1
        elif name == "add_embedding.linear_1.weight":
            known = tensor.shape[1] - (source.shape[1] - tensor.shape[1])  # the last id, the score, is new
            tensor[:, :known] = source[:, :known]
            copied += 1
    return copied


class RefinerLoss:
    """The loss of one step: epsilon prediction; a dropped caption is the empty one.

    Below t = 250 the error of a prediction falls about as the noise ratio grows (measured: 0.5 at t = 12, 0.13 at
    187). Weighted with that ratio all levels count alike; unweighted, those that are nearly free of noise, where little
    can be learned, outweigh those that decide the picture.
    """

    def __init__(
        self,
        modules: nn.ModuleDict,
        encoder: CLIPTextModelWithProjection,
        empty: Tensor,
        buckets: Sequence[Bucket],
        *,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.modules = modules
        self.encoder = encoder
        self.empty = empty.long().to(device)
        self.buckets = buckets
        self.batch = batch
        self.seed = seed
        self.device = device
        self.mean_ratio = float(noise_ratio(alphas_cumprod()[: LEVELS[-1][1]]).mean())

    def __call__(self, draw: int, progress: float) -> Tensor:
        """The loss of the draw's batch."""
        del progress
        generator = step_generator(self.seed, draw)
        batch = draw_batch(self.buckets, self.batch, LEVELS, generator, self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            prediction = predict_refiner(self.modules, self.encoder, self.empty, batch)
        error = (prediction.float() - batch.noise).square().mean((1, 2, 3))
        return (error * noise_ratio(batch.alpha_bar)).mean() / self.mean_ratio


def predict_refiner(
    modules: nn.ModuleDict, encoder: CLIPTextModelWithProjection, empty: Tensor, batch: Batch
) -> Tensor:
    """The refiner's noise prediction for a batch."""
    tokens = torch.where(batch.dropped[:, None], empty, batch.tokens_2)
    with torch.no_grad():
        context, pooled = encode_refiner(encoder, tokens)
    scores = torch.where(batch.dropped, NEGATIVE_SCORE, batch.scores)
    ids = torch.cat([batch.time_ids[:, :4], scores[:, None]], 1)
    output: Tensor = modules["unet"](
        batch.noisy,
        batch.timesteps,
        encoder_hidden_states=context,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
    ).sample
    return output
