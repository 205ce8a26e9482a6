"""prompt_embeds, sizes and timesteps → `Conditioning`: all that a U-Net needs besides the latents, computed once.

Cross-attention keys and values depend on the prompt alone, time projections on (timestep, pooled text, sizes) alone.
Computing both before the loop is exact and takes 14 % of the base U-Net's weights out of it (docs/structure.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .architecture import GUIDANCE, SizeIds
from .request.embeds import PromptEmbeds
from .request.request import ResolvedRequest
from .runners.base import Runner, Values, check_outputs

TIME_VECTORS = "time_vectors"


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What one call of the U-Net is given at every step: one side of a prompt's guidance, or both as two rows.

    `time_vectors`: (steps, rows, V) float32, one per evaluation. `key_values`: name → (rows, tokens, C) float32, where
    the back end left them.
    """

    time_vectors: np.ndarray
    key_values: Values


Known = dict[tuple[int, ...], Conditioning]
"""First side of a call, and which embeddings → what they gave."""


def condition(
    runner: Runner,
    sides: Sequence[tuple[PromptEmbeds, Sequence[float]]],
    timesteps: np.ndarray,
    *,
    rows: int,
    guidance_scale: float,
    known: Known | None = None,
    told: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[Conditioning, ...]:
    """Run a conditioner for one prompt: its embeddings and size ids, then its negative's where there is one.

    `timesteps`: (steps,), in the order of the model's evaluations. `rows`: how many sides a call of the U-Net has.
    `guidance_scale` goes into a model that takes it. `known`: what the same prompt's earlier texts have given: what
    this one shares with them, a negative say, is not computed and held twice. `told`: name → (n,) float32, what else
    such a conditioner takes, the same for every side.
    Raises `NumericError` for NaN or Inf.
    """
    known = {} if known is None else known
    found = []
    for at in range(0, len(sides), rows):
        call = sides[at : at + rows]
        key = (at, *(id(embeds) for embeds, _ in call))
        if key not in known:
            known[key] = _condition(runner, call, timesteps, guidance_scale, told)
        found.append(known[key])
    return tuple(found)


def _condition(
    runner: Runner,
    sides: Sequence[tuple[PromptEmbeds, Sequence[float]]],
    timesteps: np.ndarray,
    guidance_scale: float,
    told: Mapping[str, np.ndarray],
) -> Conditioning:
    given = {
        **{name: np.tile(row, (len(sides), 1)) for name, row in told.items()},
        "prompt_embeds": np.concatenate([embeds.prompt_embeds for embeds, _ in sides]),
        "pooled_prompt_embeds": np.concatenate([embeds.pooled_prompt_embeds for embeds, _ in sides]),
        "time_ids": np.asarray([ids for _, ids in sides], dtype=np.float32),
        "timesteps": np.asarray(timesteps, dtype=np.float32),
        GUIDANCE: np.full(len(sides), guidance_scale - 1, dtype=np.float32),
    }
    outputs = runner(
        {tensor.name: given[tensor.name] for tensor in runner.spec.inputs},
        keep=[tensor.name for tensor in runner.spec.outputs if tensor.name != TIME_VECTORS],
    )
    check_outputs(runner.name, outputs)
    vectors = np.asarray(outputs.pop(TIME_VECTORS))
    if vectors.shape[1] < len(sides):  # the same for all of them
        vectors = vectors.repeat(len(sides), axis=1)
    return Conditioning(time_vectors=vectors, key_values=outputs)


def time_ids(request: ResolvedRequest, kind: SizeIds | None) -> tuple[list[float], list[float]]:
    """The size, crop and target (or aesthetic score) ids for the prompt and for the negative prompt.

    The rule is diffusers' (`_get_add_time_ids`): a base falls back to the prompt's ids unless both negative sizes are
    given; a refiner has its own negative score; a model without size ids has none.
    """
    if kind is None:
        return [], []
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
