"""The one place where a request is checked, before anything is allocated."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..architecture import Models
from ..errors import RequestError
from ..inversion.shelf import embeddings_in
from ..sampling.samplers.table import find_sampler
from .dynamic import dynamic_of
from .embeds import Given, given_embeddings
from .limits import boolean, finite, integer, listed, number, pair, short_text, show
from .loras import lora_uses
from .noise_sources import noise_sources
from .prompts import count_prompts, read_prompts, read_templates
from .request import GenerationRequest, ResolvedRequest
from .texts import Texts

OUTPUT_TYPES = ("pil", "np", "latent")
DEFAULT_HANDOFF = 0.8
"""Share of the timesteps that the base walks where a refiner follows and the caller names none."""


def resolve(keywords: Mapping[str, Any], models: Models) -> ResolvedRequest:
    """Check every keyword of a call (`GenerationRequest`'s) against what is allowed, and fill in the defaults.

    `models` say which sizes there are and whether a refiner is there. Raises `RequestError` that names the value, what
    is allowed and the fix.
    """
    request = GenerationRequest.of(keywords)
    vae = models.vae
    height = models.native_size if request.height is None else _side("height", request.height, vae.downscale)
    width = models.native_size if request.width is None else _side("width", request.width, vae.downscale)
    integer("pixels of a picture", height * width)
    per_prompt = integer("num_images_per_prompt", request.num_images_per_prompt)
    refiner = boolean("refiner", request.refiner) and "refiner" in models.denoisers
    kinds = ("base", "refiner") if refiner else ("base",)
    guidance_scale = number("guidance_scale", request.guidance_scale)
    request, embeddings = _embeddings(request, models, kinds, guidance_scale)
    images = integer("pictures in all", count_prompts(request.prompt) * per_prompt)
    sampler, schedule = find_sampler(short_text("sampler", request.sampler), short_text("schedule", request.schedule))
    timesteps, sigmas = _custom_levels(request, schedule)
    steps = integer("num_inference_steps", request.num_inference_steps)
    steps = len(timesteps) if timesteps else len(sigmas) - 1 if sigmas else steps
    sizes = _sizes(request)
    seeds, generators = noise_sources(request.seed, request.generator, images)
    embedded = embeddings_in(request.embedding_folder, models)
    texts = Texts(literal=boolean("literal", request.literal), steps=steps, embeddings=embedded)
    dynamic = dynamic_of(boolean("dynamic", request.dynamic), request.wildcard_folder)
    if dynamic is None or embeddings is not None:
        prompts = read_prompts(request, texts)
    elif texts.literal:
        raise RequestError("literal and dynamic were both given; braces are words, or a choice")
    else:
        prompts, per_prompt = read_templates(request, texts, dynamic, seeds, per_prompt), 1
    return ResolvedRequest(
        prompts=prompts,
        num_images_per_prompt=per_prompt,
        seeds=seeds,
        generators=generators,
        latents=_latents(request.latents, (images, *vae.latent_shape(height, width))),
        embeddings=embeddings,
        clip_skip=_clip_skip(request.clip_skip, models.clip_skip),
        height=height,
        width=width,
        sampler=sampler,
        schedule=schedule,
        num_inference_steps=steps,
        timesteps=timesteps,
        sigmas=sigmas,
        eta=_eta(request.eta, sampler.name),
        guidance_scale=guidance_scale,
        guidance_rescale=number("guidance_rescale", request.guidance_rescale),
        kinds=kinds,
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
        loras=lora_uses(request.loras),
    )


def _embeddings(
    request: GenerationRequest, models: Models, kinds: Sequence[str], guidance_scale: float
) -> tuple[GenerationRequest, Given | None]:
    """The request, and what it has in place of prompts: empty texts then stand for each."""
    given = given_embeddings(vars(request), models, kinds, guidance_scale)
    if given is None:
        return request, None
    texts = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
    if beside := [name for name in texts if getattr(request, name) not in (None, "")]:
        raise RequestError(f"{beside[0]} and prompt_embeds were both given; give one of them")
    count = len(next(iter(given.values())))
    empty = replace(request, prompt=[""] * count, prompt_2=None, negative_prompt=None, negative_prompt_2=None)
    return empty, given


def _clip_skip(value: object, built: int) -> int:
    if value is not None and (isinstance(value, bool) or value != built):
        raise RequestError(
            f"clip_skip is {show(value)}, and this engine was built for {built}; leave it out, or build one with "
            "`pocketxl build --clip-skip`"
        )
    return built


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
