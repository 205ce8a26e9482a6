"""A request ↔ the settings that are written into its pictures, under AUTOMATIC1111's names where it has one."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..request.request import GenerationRequest, ValidRequest
from ..sampling.samplers.table import SAMPLERS, SCHEDULES
from .infotext import NEGATIVE, PROMPT

_NUMBERS = {
    "CFG rescale": "guidance_rescale",
    "Eta": "eta",
    "Aesthetic score": "aesthetic_score",
    "Negative aesthetic score": "negative_aesthetic_score",
}
_SIZES = {
    "Original size": "original_size",
    "Target size": "target_size",
    "Negative original size": "negative_original_size",
    "Negative target size": "negative_target_size",
}
_CROPS = {"Crop top-left": "crops_coords_top_left", "Negative crop top-left": "negative_crops_coords_top_left"}
_LEVELS = {"Timesteps": "timesteps", "Sigmas": "sigmas"}
_TEXTS = {"Prompt 2": "prompt_2", "Negative prompt 2": "negative_prompt_2"}


def describe(
    request: ValidRequest, image: int, *, model: str, version: str, refiner: str | None = None
) -> dict[str, str]:
    """The settings of picture `image` of a request, ready for `infotext.write`; values at their defaults are left out.

    `model` and `refiner` name the checkpoints, `version` is PocketXL's.
    """
    texts = request.prompts[image // request.num_images_per_prompt]
    settings = {PROMPT: texts.prompt}
    if texts.negative_prompt is not None:
        settings[NEGATIVE] = texts.negative_prompt
    settings |= {
        "Steps": str(request.num_inference_steps),
        "Sampler": SAMPLERS[request.sampler].label,
        "Schedule type": SCHEDULES[request.schedule],
        "CFG scale": _plain(request.guidance_scale),
        "Seed": str(request.seeds[image]),
        "Size": f"{request.width}x{request.height}",
        "Model": model,
        # Without this, readers take the noise for a GPU's.
        "RNG": "CPU",
    }
    settings |= {key: text for key, name in _TEXTS.items() if (text := getattr(texts, name)) is not None}
    fields = GenerationRequest.__dataclass_fields__
    for key, name in _NUMBERS.items():
        if (value := getattr(request, name)) != fields[name].default:
            settings[key] = _plain(value)
    for key, name in _SIZES.items():
        if (size := getattr(request, name)) not in (None, (request.height, request.width)) or (
            size is not None and name.startswith("negative")
        ):
            settings[key] = f"{size[1]}x{size[0]}"
    for key, name in _CROPS.items():
        if (crop := getattr(request, name)) != (0, 0):
            settings[key] = " ".join(map(str, crop))
    for key, name in _LEVELS.items():
        if (levels := getattr(request, name)) is not None:
            settings[key] = " ".join(map(_plain, levels))
    if request.latents is not None:
        settings["Latents"] = "given"
    if request.refiner:
        settings["Refiner"] = refiner or model
    if request.denoising_end is not None:
        settings["Refiner switch at" if request.refiner else "Denoising end"] = _plain(request.denoising_end)
    return settings | {"Version": f"PocketXL {version}"}


def keywords(settings: Mapping[str, str]) -> dict[str, Any]:
    """Settings (of `infotext.parse`, also from other programs) → keywords that make the same picture again.

    Settings that are no request of ours (model, version) are passed over. Raises `RequestError` for a value that cannot
    be read; the names of samplers and schedules are checked later, with everything else.
    """
    found: dict[str, Any] = {"prompt": settings.get(PROMPT, ""), "refiner": "Refiner" in settings}
    renamed = {NEGATIVE: "negative_prompt", "Sampler": "sampler", "Schedule type": "schedule", **_TEXTS}
    found |= {name: settings[key] for key, name in renamed.items() if key in settings}
    whole = {"Steps": "num_inference_steps", "Seed": "seed"}
    found |= {name: _read(key, settings[key], int)[0] for key, name in whole.items() if key in settings}
    real = {**_NUMBERS, "CFG scale": "guidance_scale", "Refiner switch at": "denoising_end"}
    real["Denoising end"] = "denoising_end"
    found |= {name: _read(key, settings[key], float)[0] for key, name in real.items() if key in settings}
    if "Size" in settings:
        found["width"], found["height"] = _read("Size", settings["Size"], int, 2)
    for key, name in _SIZES.items():
        if key in settings:
            width, height = _read(key, settings[key], int, 2)
            found[name] = (height, width)
    found |= {name: tuple(_read(key, settings[key], int, 2)) for key, name in _CROPS.items() if key in settings}
    found |= {name: _read(key, settings[key], float, None) for key, name in _LEVELS.items() if key in settings}
    return found


def _read(key: str, text: str, kind: type[int] | type[float], count: int | None = 1) -> Sequence[Any]:
    parts = text.replace("x", " ").split() if kind is int else text.split()
    try:
        values = [kind(part) for part in parts if len(part) <= 64]
    except ValueError:
        values = []
    if len(values) != (len(parts) if count is None else count) or not values:
        raise RequestError(f"setting {key} is {text[:64]!r}; it must be {count or 'some'} number{'s'[: count != 1]}")
    return values


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
