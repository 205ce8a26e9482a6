"""What a picture says of the pictures that it was made from, and of a second pass: AUTOMATIC1111's names where it has.

A picture that went in is recorded by its sha256 alone: over width, height and pixels, so that it is the same in any
lossless file. One name means two things there: with `Hires upscale`, `Denoising strength` is the second pass's.
"""

from collections.abc import Mapping
from typing import Any

from ..request.hires import HASH, UPSCALERS
from ..request.options import OPTIONS
from ..request.request import ResolvedRequest

IMAGE, MASK = "Init image hash", "Mask hash"
STRENGTH, HIRES = "Denoising strength", "Hires upscale"
PASTE_BACK, NO_BASE = "Paste back", "Base"
AREA, ONLY_MASKED = "Inpaint area", "Only masked"
LABELS = frozenset({IMAGE, MASK, PASTE_BACK, NO_BASE, HASH, AREA})
"""Those that no option has."""
NAMES = frozenset(
    {
        "strength", "mask_blur", "padding_mask_crop", "denoising_start",
        "hires_scale", "hires_strength", "hires_steps", "hires_upscaler",
    }
)  # fmt: skip
"""The options that are told here."""


def describe_inputs(request: ResolvedRequest, image: int) -> dict[str, str]:
    """The settings of picture `image` that concern what it was made from; empty for one out of a prompt alone."""
    found: dict[str, str] = {}
    if request.pictures is not None:
        given = request.pictures.at(image, request.images)
        if given.denoising_start is None:
            found[STRENGTH] = _plain(given.strength)
        else:
            found[str(OPTIONS["denoising_start"].label)] = _plain(given.denoising_start)
        found |= dict(zip((IMAGE,), given.digests, strict=False)) | dict(zip((MASK,), given.mask_digests, strict=False))
        if given.mask_blur:
            found[str(OPTIONS["mask_blur"].label)] = _plain(given.mask_blur)
        if given.padding is not None:
            found |= {AREA: ONLY_MASKED, str(OPTIONS["padding_mask_crop"].label): str(given.padding)}
        if given.paste_back:
            found[PASTE_BACK] = "True"
        if "base" not in request.kinds:
            found[NO_BASE] = "False"
    if request.hires is not None:
        hires = request.hires
        found |= {STRENGTH: _plain(hires.strength), HIRES: _plain(hires.scale)}
        if hires.steps is not None:
            found[str(OPTIONS["hires_steps"].label)] = str(hires.steps)
        found[str(OPTIONS["hires_upscaler"].label)] = UPSCALERS.get(hires.upscaler, hires.upscaler)
        if hires.network is not None:
            found[HASH] = hires.network.hash
    return found


def input_keywords(settings: Mapping[str, str], found: dict[str, Any]) -> dict[str, Any]:
    """Keywords by the options' labels → those that were meant."""
    kept = dict(found)
    if HIRES in settings:
        kept.pop("mask_blur", None)
        if "strength" in kept:
            kept["hires_strength"] = kept.pop("strength")
        if kept.get("hires_steps") == 0:  # as many as the first pass would have made
            del kept["hires_steps"]
    else:
        kept = {name: value for name, value in kept.items() if not name.startswith("hires_")}
    if settings.get(AREA, ONLY_MASKED) != ONLY_MASKED or HIRES in settings:
        kept.pop("padding_mask_crop", None)
    if settings.get(PASTE_BACK) == "True":
        kept["paste_back"] = True
    if settings.get(NO_BASE) == "False":
        kept["base"] = False
    return kept


def pictures_needed(settings: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether settings, ours or another program's, are of something made from a picture, and from a mask."""
    mask = MASK in settings or (("Mask blur" in settings or AREA in settings) and HIRES not in settings)
    image = IMAGE in settings or "Denoising start" in settings or (STRENGTH in settings and HIRES not in settings)
    return image or mask, mask


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
