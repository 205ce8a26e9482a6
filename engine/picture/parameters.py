"""A request ↔ the settings that are written into its pictures, under AUTOMATIC1111's names where it has one."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..inversion.read import HASH_DIGITS as TI_DIGITS
from ..request.decoders import FULL, LABELS, SETTING, decoder_of
from ..request.options import OPTIONS, Form
from ..request.request import GenerationRequest, ResolvedRequest
from ..sampling.samplers.table import SCHEDULES
from .control import describe_adapters, describe_controls, describe_image_prompt
from .infotext import NEGATIVE, PROMPT
from .inputs import NAMES, describe_inputs, input_keywords
from .lora_hashes import hashes_of, tags_of

HANDOFFS = ("Refiner switch at", "Denoising end")
"""Where the base stops: with a refiner, and without."""
INVERSIONS = "TI hashes"
"""Embeddings of the prompts, each with the start of its file's sha256."""
HASH_DIGITS = 10
"""Of an engine's digest in settings, as many as AUTOMATIC1111 shows of a checkpoint's."""
# Always told, in AUTOMATIC1111's order; the other options follow where they are not at their defaults.
_HEAD = ("negative_prompt", "num_inference_steps", "guidance_scale", "seed")
# Of these the picture's own size is the default.
_OWN_SIZE = ("original_size", "target_size")


def describe(
    request: ResolvedRequest, image: int, *, model: str, version: str, model_hash: str = "", refiner: str | None = None
) -> dict[str, str]:
    """The settings of picture `image` of a request, ready for `infotext.write`; values at their defaults are left out.

    `model` and `refiner` name the checkpoints, `model_hash` tells the engine apart from others whatever its folder is
    called, `version` is PocketXL's.
    """
    prompt = request.prompts[image // request.num_images_per_prompt]
    settings = {PROMPT: prompt.prompt.given + tags_of(request.loras)}
    if prompt.negative_prompt is not None:
        settings[NEGATIVE] = prompt.negative_prompt.given
    settings |= {
        "Steps": str(request.num_inference_steps),
        "Sampler": request.sampler.label,
        "Schedule type": SCHEDULES[request.schedule],
        "CFG scale": _plain(request.guidance_scale),
        **({} if request.seeds[image] is None else {"Seed": str(request.seeds[image])}),
        "Size": f"{request.width}x{request.height}",
        **({"Model hash": model_hash} if model_hash else {}),
        "Model": model,
        # Without this, readers take the noise for a GPU's.
        "RNG": "CPU",
    }
    for name, row in OPTIONS.items():
        if row.label is not None and name not in _HEAD and name not in NAMES:
            value = getattr(prompt if row.form is Form.TEXT else request, name)
            if value is not None and value != _default(request, name):
                settings[row.label] = _write(row.form, value)
    settings |= hashes_of(request.loras)
    for label, template in (("Template", prompt.template), ("Negative Template", prompt.negative_template)):
        if template is not None:
            settings[label] = template
    if prompt.inversions:
        settings[INVERSIONS] = ", ".join(f"{one.name}: {one.digest[:TI_DIGITS]}" for one in prompt.inversions)
    if request.clip_skip:
        # AUTOMATIC1111 counts from the last layer on, from 1: the penultimate, SDXL's own, is 2.
        settings["Clip skip"] = str(2 + request.clip_skip)
    settings |= describe_inputs(request, image)
    if request.decoder != FULL:
        settings[SETTING] = LABELS[request.decoder]
    if request.latents is not None:
        settings["Latents"] = "given"
    if request.embeddings is not None:
        settings["Prompt embeds"] = "given"
    if request.refiner:
        settings["Refiner"] = refiner or model
    if request.denoising_end is not None:
        settings[HANDOFFS[not request.refiner]] = _plain(request.denoising_end)
    settings |= describe_controls(request.controls) | describe_adapters(request.adapters)
    settings |= describe_image_prompt(request.image_prompt)
    return settings | {"Version": f"PocketXL {version}"}


def keywords(settings: Mapping[str, str]) -> dict[str, Any]:
    """Settings (of `infotext.parse`, also from other programs) → keywords that make the same picture again.

    Settings that are no request of ours (model, version) are passed over. Raises `RequestError` for a value that cannot
    be read; the names of samplers and schedules are checked later, with everything else.
    """
    found: dict[str, Any] = {"prompt": settings.get(PROMPT, ""), "refiner": "Refiner" in settings}
    for key, name in (("Sampler", "sampler"), ("Schedule type", "schedule")):
        if key in settings:
            found[name] = settings[key]
    if SETTING in settings:
        found["decoder"] = decoder_of(settings[SETTING])
    for key in HANDOFFS:
        if key in settings:
            found["denoising_end"] = read(Form.NUMBER, key, settings[key])
    if "Size" in settings:
        found["height"], found["width"] = read(Form.SIZE, "Size", settings["Size"])
    for name, row in OPTIONS.items():
        if row.label is not None and row.label in settings:
            found[name] = read(row.form, row.label, settings[row.label])
    return input_keywords(settings, found)


def read(form: Form, key: str, text: str) -> Any:
    """A value from its text (`Form` says how it is written). Raises `RequestError` that names `key`."""
    match form:
        case Form.TEXT:
            return text
        case Form.WHOLE:
            return _numbers(key, text, int, 1)[0]
        case Form.NUMBER:
            return _numbers(key, text, float, 1)[0]
        case Form.SIZE:
            return tuple(reversed(_numbers(key, text.replace("x", " "), int, 2)))
        case Form.POINT:
            return tuple(_numbers(key, text.replace("x", " "), int, 2))
        case Form.LEVELS:
            return _numbers(key, text, float, None)


def _write(form: Form, value: Any) -> str:
    match form:
        case Form.TEXT:
            return str(value.given)
        case Form.WHOLE:
            return str(value)
        case Form.NUMBER:
            return _plain(value)
        case Form.SIZE:
            return f"{value[1]}x{value[0]}"
        case Form.POINT:
            return " ".join(map(str, value))
        case Form.LEVELS:
            return " ".join(map(_plain, value))


def _default(request: ResolvedRequest, name: str) -> Any:
    own = (request.height, request.width)
    return own if name in _OWN_SIZE else GenerationRequest.__dataclass_fields__[name].default


def _numbers(key: str, text: str, kind: type[int] | type[float], count: int | None) -> Sequence[Any]:
    parts = text.split()
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
