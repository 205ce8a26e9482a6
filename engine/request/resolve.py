"""The one place where a request is checked, before anything is allocated."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..architecture import Models
from ..errors import RequestError
from ..inversion.shelf import embeddings_in
from ..presets.apply import with_preset
from ..sampling.samplers.base import Sampler
from ..sampling.samplers.table import SAMPLERS, find_sampler
from ..upscaler import Enlarger
from .controls import Loaded, control_uses
from .decoders import checked_decoder
from .dynamic import dynamic_of
from .embeds import Given, given_embeddings
from .hires import resolve_hires
from .image_prompt import image_prompt
from .limits import boolean, finite, integer, listed, number, short_text, show
from .noise_sources import noise_sources
from .pictures import Given as GivenPictures
from .pictures import picture_input, read_pictures
from .prompts import count_prompts, read_prompts, read_templates
from .request import GenerationRequest, ResolvedRequest
from .t2i_adapters import adapter_uses
from .tagged import with_tags, without_tags
from .texts import Texts
from .told_sizes import told_sizes
from .untold import refuse_untold

OUTPUT_TYPES = ("pil", "np", "latent")
DEFAULT_HANDOFF = 0.8
"""Share of the timesteps that the base walks where a refiner follows and the caller names none."""


def resolve(
    keywords: Mapping[str, Any],
    models: Models,
    controlnets: Mapping[str, Loaded] = MappingProxyType({}),
    image_prompts: tuple[int | None, str] = (None, ""),
    adapters: Mapping[str, Loaded] = MappingProxyType({}),
    upscaler: Enlarger | None = None,
) -> ResolvedRequest:
    """Check every keyword of a call (`GenerationRequest`'s) against what is allowed, and fill in the defaults.

    `models` say which sizes there are and whether a refiner is there, `controlnets`, `adapters` and `upscaler` what is
    loaded, `image_prompts` the side of the pictures that an IP-Adapter takes, and its name. Raises `RequestError` that
    names the value, what is allowed and the fix.
    """
    given = GenerationRequest.of(with_preset(keywords))
    request, loras = without_tags(given)
    refuse_untold(request, models)
    guidance_scale = number("guidance_scale", request.guidance_scale)
    kinds = _kinds(request, models)
    request, embeddings = _embeddings(request, models, kinds, guidance_scale)
    pictures = read_pictures(request, models, count_prompts(request.prompt))
    height, width = _size(request, models, pictures if request.padding_mask_crop is None else None)
    per_prompt = integer("num_images_per_prompt", request.num_images_per_prompt)
    images = integer("pictures in all", count_prompts(request.prompt) * per_prompt)
    sampler, schedule = find_sampler(short_text("sampler", request.sampler), short_text("schedule", request.schedule))
    timesteps, sigmas = _custom_levels(request, schedule)
    steps = integer("num_inference_steps", request.num_inference_steps)
    steps = len(timesteps) if timesteps else len(sigmas) - 1 if sigmas else steps
    sizes = told_sizes(request)
    guidance_start, guidance_end = _interval(request)
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
        prompts=with_tags(prompts, given),
        num_images_per_prompt=per_prompt,
        seeds=seeds,
        generators=generators,
        latents=_latents(request.latents, (images, *models.vae.latent_shape(height, width))),
        embeddings=embeddings,
        clip_skip=_clip_skip(request.clip_skip, models.clip_skip),
        height=height,
        width=width,
        sampler=sampler,
        schedule=schedule,
        num_inference_steps=steps,
        timesteps=timesteps,
        sigmas=sigmas,
        eta=_eta(request.eta, sampler),
        guidance_scale=guidance_scale,
        guidance_rescale=number("guidance_rescale", request.guidance_rescale),
        guidance_start=guidance_start,
        guidance_end=guidance_end,
        kinds=kinds,
        denoising_end=_handoff(request.denoising_end, {"base", "refiner"} <= set(kinds)),
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
        pictures=None if pictures is None else picture_input(request, pictures, height, width),
        hires=resolve_hires(request, models, height, width, upscaler),
        controls=control_uses(request, controlnets, height, width),
        image_prompt=image_prompt(request, *image_prompts),
        adapters=adapter_uses(request, adapters, height, width),
        loras=loras,
        decoder=checked_decoder(request.decoder, models),
        deep_cache=integer("deep_cache", request.deep_cache),
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


def _size(request: GenerationRequest, models: Models, given: GivenPictures | None) -> tuple[int, int]:
    """(height, width): as asked for, of the picture that is given, or the models' own."""
    step = models.vae.downscale
    asked = [
        None if value is None else _side(name, value, step)
        for name, value in (("height", request.height), ("width", request.width))
    ]
    native = models.native_size
    height, width = (native, native) if given is None else given.size(step, *asked)
    height, width = asked[0] or height, asked[1] or width
    integer("height", height)
    integer("width", width)
    integer("pixels of a picture", height * width)
    return height, width


def _kinds(request: GenerationRequest, models: Models) -> tuple[str, ...]:
    """The models that take part, in running order."""
    base, refiner = boolean("base", request.base), boolean("refiner", request.refiner)
    if not base and (request.image is None or not refiner or "refiner" not in models.denoisers):
        raise RequestError(
            "base is False, which leaves the work on a picture to the refiner; give image, and an engine that has a "
            "refiner, or leave base out"
        )
    kinds = tuple(kind for kind, on in (("base", base), ("refiner", refiner)) if on and kind in models.denoisers)
    inpaints = [kind for kind in kinds if models.denoisers[kind].unet.inpaints(models.vae.latent_channels)]
    if inpaints and (request.image is None or request.mask_image is None):
        raise RequestError(
            f"the {inpaints[0]} of this engine is for inpainting: it paints what a mask leaves out of a picture; give "
            "image and mask_image"
        )
    return kinds


def _output_type(value: object) -> str:
    name = short_text("output_type", value)
    if name not in OUTPUT_TYPES:
        raise RequestError(f"output_type is {show(value)}; choose one of {', '.join(OUTPUT_TYPES)}")
    return name


def _callback(value: Any) -> Any:
    if value is not None and not callable(value):
        raise RequestError(f"callback_on_step_end is {show(value)}; give a function or None")
    return value


def _eta(value: object, sampler: Sampler) -> float:
    eta = number("eta", value)
    if eta and not sampler.eta:
        others = " or ".join(f"'{row.name}'" for row in SAMPLERS.values() if row.eta)
        raise RequestError(
            f"eta is {eta:g} and the sampler {sampler.name}, which has none; leave eta out or use sampler {others}"
        )
    return eta


def _interval(request: GenerationRequest) -> tuple[float, float]:
    start, end = (number(name, getattr(request, name)) for name in ("guidance_start", "guidance_end"))
    if start >= end:
        raise RequestError(
            f"guidance_start is {start:g} and guidance_end {end:g}; the first must be below the second "
            "(guidance_scale 1 is none at all)"
        )
    return start, end


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
