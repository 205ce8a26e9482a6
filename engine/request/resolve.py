"""The one place where a request is checked, before anything is allocated."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..architecture import Models
from ..errors import RequestError
from ..sampling.samplers.table import find_sampler
from .decoders import checked_decoder
from .limits import LIMITS, boolean, finite, integer, listed, number, pair, short_text, show
from .noise_sources import noise_sources
from .prompt import escape, parse_prompt
from .request import GenerationRequest, Prompt, ResolvedRequest, Text
from .untold import refuse_untold

OUTPUT_TYPES = ("pil", "np", "latent")
DEFAULT_HANDOFF = 0.8
"""Share of the timesteps that the base walks where a refiner follows and the caller names none."""


def resolve(keywords: Mapping[str, Any], models: Models) -> ResolvedRequest:
    """Check every keyword of a call (`GenerationRequest`'s) against what is allowed, and fill in the defaults.

    `models` say which sizes there are and whether a refiner is there. Raises `RequestError` that names the value, what
    is allowed and the fix.
    """
    request = GenerationRequest.of(keywords)
    refuse_untold(request, models)
    vae = models.vae
    height = models.native_size if request.height is None else _side("height", request.height, vae.downscale)
    width = models.native_size if request.width is None else _side("width", request.width, vae.downscale)
    integer("pixels of a picture", height * width)
    prompts = _prompts(request, literal=boolean("literal", request.literal))
    per_prompt = integer("num_images_per_prompt", request.num_images_per_prompt)
    images = integer("pictures in all", len(prompts) * per_prompt)
    sampler, schedule = find_sampler(short_text("sampler", request.sampler), short_text("schedule", request.schedule))
    timesteps, sigmas = _custom_levels(request, schedule)
    steps = integer("num_inference_steps", request.num_inference_steps)
    refiner = boolean("refiner", request.refiner) and "refiner" in models.denoisers
    sizes = _sizes(request)
    seeds, generators = noise_sources(request.seed, request.generator, images)
    return ResolvedRequest(
        prompts=prompts,
        num_images_per_prompt=per_prompt,
        seeds=seeds,
        generators=generators,
        latents=_latents(request.latents, (images, *vae.latent_shape(height, width))),
        height=height,
        width=width,
        sampler=sampler,
        schedule=schedule,
        num_inference_steps=len(timesteps) if timesteps else len(sigmas) - 1 if sigmas else steps,
        timesteps=timesteps,
        sigmas=sigmas,
        eta=_eta(request.eta, sampler.name),
        guidance_scale=number("guidance_scale", request.guidance_scale),
        guidance_rescale=number("guidance_rescale", request.guidance_rescale),
        kinds=("base", "refiner") if refiner else ("base",),
        denoising_end=_handoff(request.denoising_end, refiner),
        original_size=sizes.original or (height, width),
        target_size=sizes.target or (height, width),
        crops_coords_top_left=sizes.crop,
        negative_original_size=sizes.negative_original,
        negative_target_size=sizes.negative_target,
        negative_crops_coords_top_left=sizes.negative_crop,
        aesthetic_score=number("aesthetic_score", request.aesthetic_score),
        negative_aesthetic_score=number("negative_aesthetic_score", request.negative_aesthetic_score),
        output_type=_output_type(request.output_type),
        callback_on_step_end=_callback(request.callback_on_step_end),
        decoder=checked_decoder(request.decoder, models),
    )


def _output_type(value: object) -> str:
    name = short_text("output_type", value)
    if name not in OUTPUT_TYPES:
        raise RequestError(f"output_type is {show(value)}; choose one of {', '.join(OUTPUT_TYPES)}")
    return name


def _callback(value: Any) -> Any:
    if value is not None and not callable(value):
        raise RequestError(f"callback_on_step_end is {show(value)}; give a function or None")
    return value


def _eta(value: object, sampler: str) -> float:
    eta = number("eta", value)
    if eta and sampler != "ddim":
        raise RequestError(
            f"eta is {eta:g} and the sampler {sampler}, which has none; leave eta out or use sampler 'ddim'"
        )
    return eta


class _Sizes(NamedTuple):
    original: tuple[int, int] | None
    target: tuple[int, int] | None
    crop: tuple[int, int]
    negative_original: tuple[int, int] | None
    negative_target: tuple[int, int] | None
    negative_crop: tuple[int, int]


def _sizes(request: GenerationRequest) -> _Sizes:
    """What SDXL is told about sizes; (height, width) pairs."""
    found = _Sizes(
        original=pair("original_size", request.original_size),
        target=pair("target_size", request.target_size),
        crop=pair("crops_coords_top_left", request.crops_coords_top_left) or (0, 0),
        negative_original=pair("negative_original_size", request.negative_original_size),
        negative_target=pair("negative_target_size", request.negative_target_size),
        negative_crop=pair("negative_crops_coords_top_left", request.negative_crops_coords_top_left) or (0, 0),
    )
    # diffusers ignores these without a word where one is lacking.
    together = (found.negative_original is None) == (found.negative_target is None)
    if not together or (found.negative_original is None and found.negative_crop != (0, 0)):
        raise RequestError(
            "negative_original_size, negative_target_size and negative_crops_coords_top_left count only together; "
            "give both sizes, or none of the three"
        )
    return found


def _prompts(request: GenerationRequest, *, literal: bool) -> tuple[Prompt, ...]:
    count = 1 if isinstance(request.prompt, str) else len(listed("prompt", request.prompt))
    if not 1 <= count <= LIMITS["pictures in all"][1]:
        raise RequestError(f"prompt is a list of {count} texts; give 1 to {LIMITS['pictures in all'][1]:g}")
    prompts = _column("prompt", request.prompt, count)
    prompts_2 = _column("prompt_2", request.prompt_2, count)
    negatives = _column("negative_prompt", request.negative_prompt, count)
    negatives_2 = _column("negative_prompt_2", request.negative_prompt_2, count)
    return tuple(
        Prompt(
            prompt=_text("prompt", prompts[i], literal),
            prompt_2=_optional_text("prompt_2", prompts_2[i], literal),
            negative_prompt=_optional_text("negative_prompt", negatives[i], literal),
            negative_prompt_2=_optional_text("negative_prompt_2", negatives_2[i], literal),
        )
        for i in range(count)
    )


def _column(name: str, value: object, count: int) -> list[Any]:
    """One entry a prompt: a list as it is, anything else for all of them."""
    texts = [value] * count if value is None or isinstance(value, str) else listed(name, value)
    if len(texts) != count:
        raise RequestError(
            f"{name} is a list of {len(texts)} texts for {count} prompts; give one for each, or a single text"
        )
    return texts


def _optional_text(name: str, text: object, literal: bool) -> Text | None:
    return None if text is None else _text(name, text, literal)


def _text(name: str, text: object, literal: bool) -> Text:
    if not isinstance(text, str):
        raise RequestError(f"{name} is {show(text)}; give a text")
    if len(text) > LIMITS["characters of a prompt"][1]:
        raise RequestError(
            f"{name} has {len(text)} characters, at most {LIMITS['characters of a prompt'][1]:g} are allowed"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(f"{name} holds a lone surrogate, which is not text; remove it")
    if literal:
        # Kept as it would be written with weights, so that the settings in a picture make it again.
        return Text(given=escape(text), runs=((text, 1.0),))
    return Text(given=text, runs=tuple(parse_prompt(text)))


def _custom_levels(
    request: GenerationRequest, schedule: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if request.timesteps is not None and request.sigmas is not None:
        raise RequestError("timesteps and sigmas were both given; give one of them")
    levels: dict[str, tuple[float, ...] | None] = {"timesteps": None, "sigmas": None}
    for name, least, most in (("timesteps", 1, 999.0), ("sigmas", 2, math.inf)):
        given = getattr(request, name)
        if given is None:
            continue
        values = tuple(finite(name, value) for value in listed(name, given))
        falling = all(b < a for a, b in itertools.pairwise(values))
        if not least <= len(values) <= 1000 or not falling or not 0 <= values[-1] <= values[0] <= most:
            raise RequestError(
                f"{name} is {show(given)}; give {least} to 1000 numbers, each below the one before"
                + (", from 999 down to 0" if name == "timesteps" else ", none below 0")
            )
        if schedule != "default":
            raise RequestError(f"{name} were given, and schedule {schedule!r} too; leave the schedule out")
        levels[name] = values
    return levels["timesteps"], levels["sigmas"]


def _handoff(value: object, refiner: bool) -> float | None:
    if value is None:
        return DEFAULT_HANDOFF if refiner else None
    share = finite("denoising_end", value)
    if not 0 < share < 1:
        raise RequestError(f"denoising_end is {share:g}; it must be above 0 and below 1 (0.8 is usual), or None")
    return share


def _latents(latents: object, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    if latents is None:
        return None
    try:
        array = np.asarray(latents)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"latents cannot be read as an array ({error}); give a numpy array of floats") from error
    if array.dtype.kind != "f":
        raise RequestError(f"latents are of type {array.dtype}; give floats, for example float32")
    if array.shape != shape:
        raise RequestError(
            f"latents have shape {array.shape}; it must be {shape} (pictures, channels, height / 8, width / 8)"
        )
    with np.errstate(over="ignore"):
        copy = array.astype(np.float32)
    if not np.isfinite(copy).all():
        raise RequestError("latents hold NaN or Inf; give finite noise of unit variance")
    return copy


def _side(name: str, value: object, downscale: int) -> int:
    side = integer(name, value)
    if side % downscale:
        low = max(side // downscale * downscale, downscale)
        raise RequestError(f"{name} is {side}, not a multiple of {downscale}; use {low} or {low + downscale}")
    return side
