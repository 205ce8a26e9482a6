"""Embeddings in place of prompts: diffusers' four keywords, arrays or by model, or what `Pipeline.encode` returned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..architecture import ModelArchitecture, Models
from ..errors import RequestError
from .limits import show

NAMES = ("prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds")
MOST_TOKENS = 16 * 77
"""As many as a prompt of text may have."""


@dataclass(frozen=True, kw_only=True)
class PromptEmbeds:
    """One prompt. `prompt_embeds`: (1, tokens, width) float32. `pooled_prompt_embeds`: (1, P) float32."""

    prompt_embeds: np.ndarray
    pooled_prompt_embeds: np.ndarray


Sides = tuple[PromptEmbeds, PromptEmbeds | None]
"""A prompt's embeddings and its negative's (None without guidance)."""
Given = Mapping[str, tuple[Sides, ...]]
"""Model kind → each prompt's."""


def given_embeddings(
    keywords: Mapping[str, Any], models: Models, kinds: Sequence[str], guidance_scale: float
) -> Given | None:
    """What the caller gave for the models of a call; None if nothing. `keywords`: at least those of `NAMES`.

    Each value is an array (prompts, tokens, width) or (prompts, P), which is enough where one model makes the pictures,
    or a mapping of model kind → array. `prompt_embeds` may also be what `Pipeline.encode` returned. Where a negative is
    needed and none given, zeros stand for it if the model takes them, as in diffusers. Raises `RequestError`.
    """
    values = {name: keywords[name] for name in NAMES}
    if all(value is None for value in values.values()):
        return None
    if values["prompt_embeds"] is None or values["pooled_prompt_embeds"] is None:
        encoded = _encoded(values, kinds)
        if encoded is None:
            raise RequestError("prompt_embeds and pooled_prompt_embeds count only together; give both")
        return encoded
    found = {}
    for kind in kinds:
        own = {name: _of_kind(name, value, kind, kinds) for name, value in values.items()}
        found[kind] = _model(kind, own, models.denoisers[kind], guidance_scale)
    counts = {len(sides) for sides in found.values()}
    if len(counts) > 1:
        raise RequestError(f"prompt_embeds are of {' and '.join(map(str, sorted(counts)))} prompts; give as many each")
    return found


def _encoded(values: Mapping[str, Any], kinds: Sequence[str]) -> Given | None:
    """`Pipeline.encode`'s answer, if that is what was given."""
    given = values["prompt_embeds"]
    if not isinstance(given, Mapping) or any(values[name] is not None for name in NAMES[1:]):
        return None
    if missing := [kind for kind in kinds if kind not in given]:
        raise _missing("prompt_embeds", missing[0])
    sides = {kind: tuple(given[kind]) for kind in kinds}
    if not all(isinstance(side, PromptEmbeds) for texts in sides.values() for pair in texts for side in pair if side):
        return None
    return sides


def _of_kind(name: str, value: Any, kind: str, kinds: Sequence[str]) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        if kind not in value:
            raise _missing(name, kind)
        return value[kind]
    if len(kinds) > 1:
        raise RequestError(
            f"{name} is one array, and {' and '.join(kinds)} make the pictures, which read other embeddings; give "
            "{'base': …, 'refiner': …}, or refiner=False"
        )
    return value


def _missing(name: str, kind: str) -> RequestError:
    return RequestError(f"{name} has none for the {kind}; give its own, or refiner=False")


def _model(kind: str, own: Mapping[str, Any], model: ModelArchitecture, guidance_scale: float) -> tuple[Sides, ...]:
    """One model's four arrays, checked and taken apart by prompt."""
    width, pooled_width = model.unet.cross_attention_dim, model.unet.pooled_dim
    embeds = _array("prompt_embeds", own, kind, (None, None, width))
    count, tokens, _ = embeds.shape
    pooled = _array("pooled_prompt_embeds", own, kind, (count, pooled_width))
    positive = _rows(embeds, pooled)
    if not model.guided(guidance_scale):
        return tuple((side, None) for side in positive)
    names = NAMES[2:]
    if all(own[name] is None for name in names):
        if not model.force_zeros_for_empty_prompt:
            raise RequestError(f"the {kind} takes no zeros for a negative prompt; give {' and '.join(names)} too")
        negative, negative_pooled = np.zeros_like(embeds), np.zeros_like(pooled)
    elif any(own[name] is None for name in names):
        raise RequestError(f"{' and '.join(names)} count only together; give both")
    else:
        negative = _array(names[0], own, kind, (count, tokens, width))
        negative_pooled = _array(names[1], own, kind, (count, pooled_width))
    return tuple(zip(positive, _rows(negative, negative_pooled), strict=True))


def _rows(embeds: np.ndarray, pooled: np.ndarray) -> list[PromptEmbeds]:
    return [
        PromptEmbeds(prompt_embeds=embeds[i : i + 1], pooled_prompt_embeds=pooled[i : i + 1])
        for i in range(len(embeds))
    ]


def _array(name: str, own: Mapping[str, Any], kind: str, shape: tuple[int | None, ...]) -> npt.NDArray[np.float32]:
    """One array as float32, held to its shape (None: any length)."""
    value = own[name]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{name} cannot be read as an array ({error}); give a numpy array of floats") from error
    if array.dtype.kind != "f":
        raise RequestError(f"{name} is {show(value)}; give an array of floats")
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or not 1 <= array.shape[0] <= 256 or (len(shape) == 3 and not 1 <= array.shape[1] <= MOST_TOKENS):
        words = ("prompts", "tokens") if len(shape) == 3 else ("prompts",)
        wanted = ", ".join(str(n if n is not None else word) for n, word in zip(shape, (*words, ""), strict=True))
        raise RequestError(f"{name} has shape {array.shape}; for the {kind} it must be ({wanted})")
    with np.errstate(over="ignore"):
        copy = array.astype(np.float32)
    if not np.isfinite(copy).all():
        raise RequestError(f"{name} holds NaN or Inf; give finite embeddings")
    return copy
