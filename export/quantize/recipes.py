"""Which layers become 8-bit, and how far the result may be from 32-bit: one row per recipe.

A recipe says nothing about a back end: a target turns the formats into its own operators, or refuses those that it
lacks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ...engine.errors import RequestError


class Kind(StrEnum):
    """A kind of layer that holds a weight matrix."""

    LINEAR = "linear"
    CONV = "conv"
    EMBEDDING = "embedding"


class Format(StrEnum):
    """How a layer's weight is stored and what its input is multiplied in."""

    KEEP = "keep"
    """The master's floats."""
    W8 = "w8"
    """int8 weight, one scale per output channel (per row of an embedding); computed in floats."""
    W8A8_DYNAMIC = "w8a8_dynamic"
    """int8 weight per output channel; the input is quantized by its own range at every call."""
    W8A8_STATIC = "w8a8_static"
    """int8 weight per output channel; input and output are quantized by calibrated ranges."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Layers of one kind whose state-dict name (without `.weight`) matches `pattern` as a whole get `format`."""

    kind: Kind
    pattern: str
    format: Format

    def matches(self, kind: Kind, name: str) -> bool:
        """True where the rule speaks of that layer."""
        return self.kind is kind and re.fullmatch(self.pattern, name) is not None


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How much of a real denoising run is watched for activation ranges."""

    prompts: int = 2
    steps: int = 6


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row: rules and permitted error by component role (`unet`, `conditioner`, `text_encoder`, `vae_decoder`)."""

    name: str
    dtype: str
    """What the kept weights are stored in: float32 or float16."""
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """The first rule that matches a layer decides; a layer without a rule keeps its floats."""
    max_relative_error: Mapping[str, float]
    """|lowered - reference| / |reference| (L2, over all samples) above which a build fails."""
    min_psnr_db: float
    """PSNR of the short end-to-end run against the unquantized reference below which a build fails."""
    calibration: CalibrationSettings = CalibrationSettings()

    def format(self, component: str, kind: Kind, name: str) -> Format:
        """The format of layer `name` of a component such as `base/unet`."""
        for rule in self.rules.get(role(component), ()):
            if rule.matches(kind, name):
                return rule.format
        return Format.KEEP

    def needs_calibration(self, component: str) -> bool:
        """True if the component has layers whose activation ranges must be known before it is built."""
        return any(rule.format is Format.W8A8_STATIC for rule in self.rules.get(role(component), ()))


def role(component: str) -> str:
    """`base/unet` → `unet`, `text_encoder_2` → `text_encoder`."""
    name = component.rsplit("/", 1)[-1]
    return "text_encoder" if name.startswith("text_encoder") else name


def _rule(kind: Kind, pattern: str, format: Format) -> Rule:
    return Rule(kind=kind, pattern=pattern, format=format)


# Runs once per picture, and the begin-of-text token's outliers are the bane of 8-bit activations: weights only.
_TEXT_ENCODER = (
    _rule(Kind.LINEAR, r".*", Format.W8),
    _rule(Kind.EMBEDDING, r".*token_embedding", Format.W8),
)
_CONDITIONER = (_rule(Kind.LINEAR, r".*\.attn2\.to_[kv]", Format.W8),)
# The first and last convolution touch the latents themselves: 0.1 % of the work.
_KEEP_EDGES = (_rule(Kind.CONV, r"conv_in|conv_out", Format.KEEP),)
# These see the residual stream, which no norm has tamed, in one range per tensor. On a half-trained miniature the
# U-Net's error fell from 5.9 % to 2.6 without the shortcuts and to 1.9 without downsampling too; upsampling in floats
# gained only 0.1 and would cost a tenth of the time. Shortcuts and downsampling are 1.3 % of the work.
_KEEP_RESIDUAL_STREAM = (_rule(Kind.CONV, r".*\.conv_shortcut|.*\.downsamplers\.0\.conv", Format.KEEP),)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="fp32",
            dtype="float32",
            max_relative_error={"unet": 1e-4, "conditioner": 1e-4, "text_encoder": 1e-4, "vae_decoder": 1e-4},
            min_psnr_db=50.0,
        ),
        Recipe(
            name="fp16",
            dtype="float16",
            max_relative_error={"unet": 1e-2, "conditioner": 1e-2, "text_encoder": 1e-2, "vae_decoder": 1e-2},
            min_psnr_db=35.0,
        ),
        Recipe(
            name="int8",
            dtype="float32",
            rules={
                "unet": (
                    *_KEEP_EDGES,
                    *_KEEP_RESIDUAL_STREAM,
                    _rule(Kind.CONV, r".*", Format.W8A8_STATIC),
                    _rule(Kind.LINEAR, r".*", Format.W8A8_DYNAMIC),
                ),
                "conditioner": _CONDITIONER,
                "text_encoder": _TEXT_ENCODER,
            },
            max_relative_error={"unet": 0.12, "conditioner": 0.02, "text_encoder": 0.05, "vae_decoder": 1e-4},
            min_psnr_db=20.0,
        ),
        Recipe(
            name="int8-weight",
            dtype="float32",
            rules={
                "unet": (
                    *_KEEP_EDGES,
                    _rule(Kind.CONV, r".*", Format.W8),
                    _rule(Kind.LINEAR, r".*", Format.W8),
                ),
                "conditioner": _CONDITIONER,
                "text_encoder": _TEXT_ENCODER,
                "vae_decoder": (_rule(Kind.CONV, r".*\.conv\d", Format.W8), _rule(Kind.LINEAR, r".*", Format.W8)),
            },
            max_relative_error={"unet": 0.04, "conditioner": 0.02, "text_encoder": 0.05, "vae_decoder": 0.02},
            min_psnr_db=25.0,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; `RequestError` lists those that there are."""
    try:
        return RECIPES[name]
    except KeyError:
        raise RequestError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}") from None
