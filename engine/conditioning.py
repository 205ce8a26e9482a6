"""prompt_embeds, sizes and timesteps → `Conditioning`: all that a U-Net needs besides the latents, computed once.

Cross-attention keys and values depend on the prompt alone, time projections on (timestep, pooled text, sizes) alone.
Computing both before the loop is exact and takes 14 % of the base U-Net's weights out of it (docs/structure.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .architecture import SizeIds
from .request.request import ValidRequest
from .runners.base import Runner, check_outputs
from .text.encode import PromptEmbeds


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """One row (one prompt, one side of the guidance).

    `time_vectors`: (steps, 1, V) float32, one per evaluation of the model. `key_values`: name → (1, tokens, C) float32.
    """

    time_vectors: np.ndarray
    key_values: Mapping[str, np.ndarray]

    def inputs(self, evaluation: int) -> dict[str, np.ndarray]:
        """The U-Net's inputs for one evaluation, without the latents."""
        return {"time_vectors": self.time_vectors[evaluation], **self.key_values}


def condition(runner: Runner, embeds: PromptEmbeds, time_ids: Sequence[float], timesteps: np.ndarray) -> Conditioning:
    """Run a conditioner for one prompt. `timesteps`: (steps,), in the order of the model's evaluations.

    Raises `NumericError` for NaN or Inf.
    """
    outputs = runner(
        {
            "prompt_embeds": embeds.prompt_embeds,
            "pooled_prompt_embeds": embeds.pooled_prompt_embeds,
            "time_ids": np.asarray([time_ids], dtype=np.float32),
            "timesteps": np.asarray(timesteps, dtype=np.float32),
        }
    )
    check_outputs(runner.name, outputs)
    return Conditioning(time_vectors=outputs.pop("time_vectors"), key_values=outputs)


def time_ids(request: ValidRequest, kind: SizeIds) -> tuple[list[float], list[float]]:
    """The size, crop and target (or aesthetic score) ids for the prompt and for the negative prompt.

    The rule is diffusers' (`_get_add_time_ids`): a base falls back to the prompt's ids unless both negative sizes are
    given; a refiner has its own negative score.
    """
    size, target, crop = request.original_size, request.target_size, request.crops_coords_top_left
    negative_crop = request.negative_crops_coords_top_left
    if kind is SizeIds.SIZE_CROP_SCORE:
        negative_size = request.negative_original_size or size
        return (
            [*map(float, (*size, *crop)), request.aesthetic_score],
            [*map(float, (*negative_size, *negative_crop)), request.negative_aesthetic_score],
        )
    positive = [float(v) for v in (*size, *crop, *target)]
    if request.negative_original_size is None or request.negative_target_size is None:
        return positive, positive
    return positive, [
        float(v) for v in (*request.negative_original_size, *negative_crop, *request.negative_target_size)
    ]
