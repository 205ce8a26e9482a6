"""The one place where a request is checked, before anything is allocated."""

import itertools
import math
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..sampling.samplers.table import find_sampler
from .limits import LIMITS, boolean, finite, integer, listed, number, pair, short_text, show
from .prompt import parse_prompt
from .request import GenerationRequest, PromptTexts, ValidRequest

OUTPUT_TYPES = ("pil", "np", "latent")
DEFAULT_HANDOFF = 0.8
"""Share of the timesteps that the base walks where a refiner follows and the caller names none."""


def validate(
    request: GenerationRequest,
    *,
    native_size: int = 1024,
    has_refiner: bool = False,
    latent_channels: int = 4,
    downscale: int = 8,
) -> ValidRequest:
    """Check every value and fill in the defaults, before anything is allocated.

    Raises `RequestError` that names the value, what is allowed and the fix.
    """
    height, width = (
        native_size if value is None else _side(name, value, downscale)
        for name, value in (("height", request.height), ("width", request.width))
    )
    integer("pixels of a picture", height * width)
    prompts = _prompts(request)
    per_prompt = integer("num_images_per_prompt", request.num_images_per_prompt)
    images = integer("pictures in all", len(prompts) * per_prompt)
    row, schedule = find_sampler(short_text("sampler", request.sampler), short_text("schedule", request.schedule))
    timesteps, sigmas = _custom_levels(request, schedule)
    eta = number("eta", request.eta)
    if eta and row.name != "ddim":
        raise RequestError(
            f"eta is {eta:g} and the sampler {row.name}, which has none; leave eta out or use sampler 'ddim'"
        )
    refiner = boolean("refiner", request.refiner) and has_refiner
    steps = integer("num_inference_steps", request.num_inference_steps)
    if short_text("output_type", request.output_type) not in OUTPUT_TYPES:
        raise RequestError(f"output_type is {show(request.output_type)}; choose one of {', '.join(OUTPUT_TYPES)}")
    if request.callback_on_step_end is not None and not callable(request.callback_on_step_end):
        raise RequestError(f"callback_on_step_end is {show(request.callback_on_step_end)}; give a function or None")
    shape = (images, latent_channels, height // downscale, width // downscale)
    kept = {field.name: getattr(request, field.name) for field in fields(GenerationRequest)}
    checked = {
        "height": height,
        "width": width,
        "prompts": prompts,
        "num_images_per_prompt": per_prompt,
        "sampler": row.name,
        "schedule": schedule,
        "timesteps": timesteps,
        "sigmas": sigmas,
        "num_inference_steps": len(timesteps) if timesteps else len(sigmas) - 1 if sigmas else steps,
        "eta": eta,
        "refiner": refiner,
        "denoising_end": _handoff(request.denoising_end, refiner),
        "latents": _latents(request.latents, shape),
        "seeds": _seeds(request, images),
        **_sizes(request, height, width),
        **{
            name: number(name, getattr(request, name))
            for name in ("guidance_scale", "guidance_rescale", "aesthetic_score", "negative_aesthetic_score")
        },
    }
    return ValidRequest(**{**kept, **checked})


def _sizes(request: GenerationRequest, height: int, width: int) -> dict[str, tuple[int, int] | None]:
    """What SDXL is told about sizes; (height, width) pairs."""
    original, target, negative_original, negative_target = (
        pair(name, getattr(request, name), "size")
        for name in ("original_size", "target_size", "negative_original_size", "negative_target_size")
    )
    crop, negative_crop = (
        pair(name, getattr(request, name), "crop") or (0, 0)
        for name in ("crops_coords_top_left", "negative_crops_coords_top_left")
    )
    # diffusers ignores these without a word where one is lacking.
    together = (negative_original is None) == (negative_target is None)
    if not together or (negative_original is None and negative_crop != (0, 0)):
        raise RequestError(
            "negative_original_size, negative_target_size and negative_crops_coords_top_left count only together; "
            "give both sizes, or none of the three"
        )
    return {
        "original_size": original or (height, width),
        "target_size": target or (height, width),
        "negative_original_size": negative_original,
        "negative_target_size": negative_target,
        "crops_coords_top_left": crop,
        "negative_crops_coords_top_left": negative_crop,
    }


def _prompts(request: GenerationRequest) -> tuple[PromptTexts, ...]:
    names = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
    given = {name: getattr(request, name) for name in names}
    count = 1 if isinstance(request.prompt, str) else len(listed("prompt", request.prompt))
    if not 1 <= count <= LIMITS["pictures in all"][1]:
        raise RequestError(f"prompt is a list of {count} texts; give 1 to {LIMITS['pictures in all'][1]:g}")
    columns: dict[str, list[str | None]] = {}
    for name, value in given.items():
        texts = [value] * count if value is None or isinstance(value, str) else listed(name, value)
        if len(texts) != count:
            raise RequestError(
                f"{name} is a list of {len(texts)} texts for {count} prompts; give one for each, or a single text"
            )
        columns[name] = [None if text is None and name != "prompt" else _prompt(name, text) for text in texts]
    return tuple(PromptTexts(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))


def _prompt(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise RequestError(f"{name} is {show(text)}; give a text")
    if len(text) > LIMITS["characters of a prompt"][1]:
        raise RequestError(
            f"{name} has {len(text)} characters, at most {LIMITS['characters of a prompt'][1]:g} are allowed"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(f"{name} holds a lone surrogate, which is not text; remove it")
    parse_prompt(text)  # weights out of range
    return text


def _seeds(request: GenerationRequest, images: int) -> tuple[int, ...]:
    """One seed a picture; a single one counts up from picture to picture (AUTOMATIC1111's convention)."""
    if request.generator is None:
        seed: object = request.seed
        if seed is None:
            import secrets

            # 32 bits: a number that people can copy, and every other interface accepts.
            seed = secrets.randbits(32)
    elif request.seed is not None:
        raise RequestError("seed and generator were both given; give one of them")
    elif isinstance(request.generator, list | tuple):
        seed = [_generator_seed(generator) for generator in request.generator]
    else:
        seed = _generator_seed(request.generator)
    if isinstance(seed, list | tuple | range | np.ndarray):
        seeds = listed("seed", seed)
        if len(seeds) != images:
            raise RequestError(
                f"{len(seeds)} seeds were given for {images} pictures; give one for each, or a single one"
            )
        return tuple(integer("seed", value) for value in seeds)
    first = integer("seed", seed)
    return tuple(integer("seed", first + i) for i in range(images))


def _generator_seed(generator: Any) -> int:
    if callable(getattr(generator, "initial_seed", None)):
        return int(generator.initial_seed())
    if callable(getattr(generator, "integers", None)):
        return int(generator.integers(1 << 32))
    raise RequestError(
        f"generator is {show(generator)}; give a torch.Generator, a numpy.random.Generator, a list of them, or a seed"
    )


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
