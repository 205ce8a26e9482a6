"""Which layers become 8-bit, and how far the result may be from 32-bit: one row per recipe.

A recipe says nothing about a back end: a target declares the formats that it can do, and turns them into its own
operators.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from ...engine.errors import RequestError
from ...engine.specs import Role
from ...kernels.sensitive import Stands, sensitive_pattern
from .formats import (
    FLOAT16,
    FLOAT32,
    FP8_TENSOR,
    KEEP,
    W4,
    W4A8_TOKEN,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
    Kind,
)

Instead = Mapping[Kind, Mapping[Format, Format | tuple[Format, ...]]]
"""What is done in place of a format, by kind of layer; several are steps of a ladder, the cheapest first."""


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
    """How much of real denoising runs is watched.

    `prompts` pictures of `steps` steps are what an engine is held to. `watched`: steps of some more, which show what
    layers do on other prompts and noise levels (`reference.watched`); 0: none.
    """

    prompts: int = 2
    steps: int = 6
    watched: int = 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row: rules and permitted error by what a component is for."""

    name: str
    kept: Format
    """What layers without a rule, and those whose rule is `KEEP`, are stored in."""
    rules: Mapping[Role, tuple[Rule, ...]] = field(default_factory=dict)
    """The first rule that matches a layer decides; a layer without a rule keeps its floats."""
    ladder: Mapping[Kind, tuple[Format, ...]] = field(default_factory=dict)
    """What a layer may have instead where its format loses too much: the formats behind its own, cheapest first."""
    bits: Mapping[Role, float] = field(default_factory=dict)
    """The mean bits of a weight's numbers that such a component is to have; as many layers climb the ladder as fit."""
    max_relative_error: Mapping[Role, float]
    """|lowered - reference| / |reference| (L2, over all samples): the goal, and above it a build fails."""
    min_psnr_db: float
    """PSNR of the short end-to-end run against the unquantized reference below which a build fails."""
    calibration: CalibrationSettings = CalibrationSettings()

    def format(self, role: Role, kind: Kind, name: str) -> Format:
        """The format of layer `name` in a component of that role, never `KEEP`: what it is kept in instead."""
        for rule in self.rules.get(role, ()):
            if rule.matches(kind, name):
                return self.kept if rule.format == KEEP else rule.format
        return self.kept

    def keeping(self, role: Role, layers: Iterable[tuple[Kind, str]]) -> Self:
        """The same recipe with these layers of such components in floats; also the parts that a pass splits them in."""
        names: dict[Kind, set[str]] = {}
        for kind, layer in layers:
            names.setdefault(kind, set()).add(layer)
        kept = tuple(
            Rule(kind=kind, pattern=rf"(?:{'|'.join(map(re.escape, sorted(found)))})(?:\.\d+)?", format=KEEP)
            for kind, found in sorted(names.items())
        )
        return replace(self, rules={**self.rules, role: (*kept, *self.rules.get(role, ()))})

    def quantizes(self, role: Role) -> bool:
        """True if such a component has layers whose numbers depend on what they have shown."""
        return any(rule.format.quantized for rule in self.rules.get(role, ()))

    def after(self, kind: Kind, format: Format) -> tuple[Format, ...]:
        """The formats that a layer of that format may have instead."""
        steps = self.ladder.get(kind, ())
        return steps[steps.index(format) + 1 :] if format in steps else ()

    def of_floats(self, floats: Format) -> Self:
        """The same where floats are these instead of float32; a recipe that is about floats alone stays as it is."""
        if not self.rules:
            return self
        ladder = {kind: tuple(floats if f == FLOAT32 else f for f in steps) for kind, steps in self.ladder.items()}
        return replace(self, kept=floats if self.kept == FLOAT32 else self.kept, ladder=ladder)

    def with_formats(self, instead: Instead) -> Self:
        """The same with the formats of a target in place of others, in rules and ladders; equal steps become one."""

        def found(kind: Kind, format: Format) -> tuple[Format, ...]:
            formats = instead.get(kind, {}).get(format, format)
            return (formats,) if isinstance(formats, Format) else formats

        rules = {
            role: tuple(replace(rule, format=found(rule.kind, rule.format)[0]) for rule in rows)
            for role, rows in self.rules.items()
        }
        ladder = {
            kind: tuple(dict.fromkeys(one for format in steps for one in found(kind, format)))
            for kind, steps in self.ladder.items()
        }
        kept = {found(kind, self.kept)[0] for kind in Kind}
        return replace(self, rules=rules, ladder=ladder, kept=kept.pop() if len(kept) == 1 else self.kept)

    def formats(self, role: Role) -> dict[Kind, tuple[Format, ...]]:
        """Every format that a layer of each kind may get in such a component, each once."""
        rules = [rule for rule in self.rules.get(role, ()) if rule.format != KEEP]
        found = {kind: dict.fromkeys([self.kept, *(r.format for r in rules if r.kind is kind)]) for kind in Kind}
        del found[Kind.ATTENTION][self.kept]  # which it is wherever nobody speaks of it
        return {kind: tuple(formats) for kind, formats in found.items() if formats}


def _rule(kind: Kind, pattern: str, format: Format) -> Rule:
    return Rule(kind=kind, pattern=pattern, format=format)


def _limits(*, unet: float, text: float, decoder: float) -> Mapping[Role, float]:
    """Permitted errors; those of what stands beside U-Net, text encoders and decoders are the same in every recipe."""
    return {
        Role.UNET: unet,
        Role.CONDITIONER: 0.02,
        Role.TEXT_ENCODER: text,
        Role.VAE_DECODER: decoder,
        Role.TINY_DECODER: decoder,
        Role.VAE_ENCODER: 0.02,
        Role.HINT_ENCODER: 1e-2,
        Role.IMAGE_ENCODER: 0.04,
        Role.IMAGE_PROJECTION: 0.02,
        Role.UPSCALER: 1e-4,
    }


_TOKENS = _rule(Kind.EMBEDDING, r".*token_embedding", W8)
_CONDITIONER = (_rule(Kind.LINEAR, r".*\.attn2\.to_[kv]", W8),)
_IMAGE_PROJECTION = (_rule(Kind.LINEAR, r"to_[kv]_ip\.\d+", W8),)
# A range that is calibrated is the hardest on what no norm has tamed.
_KEEP_FROM_STATIC = _rule(Kind.CONV, sensitive_pattern(Stands.DYNAMIC_RANGE), KEEP)
_KEEP_FROM_WEIGHTS = _rule(Kind.CONV, sensitive_pattern(Stands.NOTHING), KEEP)

_VAE_INNER = (  # in 8 bits as in audited submissions to MLPerf 5.1: the outer ones draw the pixels
    _rule(Kind.CONV, r"decoder\.(?:mid_block|up_blocks\.[01]|up_blocks\.2\.resnets\.0)\..*conv\d?", W8A8_STATIC),
)
_VAE_WEIGHTS = (_rule(Kind.CONV, r".*\.conv\d", W8), _rule(Kind.LINEAR, r".*", W8))
# Of all but U-Nets, where these are about weights.
_WEIGHTS: Mapping[Role, tuple[Rule, ...]] = {
    Role.CONDITIONER: _CONDITIONER,
    Role.TEXT_ENCODER: (_rule(Kind.LINEAR, r".*", W8), _TOKENS),
    Role.IMAGE_ENCODER: (_rule(Kind.LINEAR, r".*", W8),),
    Role.IMAGE_PROJECTION: _IMAGE_PROJECTION,
    Role.VAE_DECODER: _VAE_WEIGHTS,
    Role.VAE_ENCODER: _VAE_WEIGHTS,
}
_LADDER = {Kind.LINEAR: (W8A8_DYNAMIC, W8A8_TOKEN, W8A8_GROUP, W8, FLOAT32), Kind.CONV: (W8A8_STATIC, W8, FLOAT32)}
_LADDER_OF_FLOATS = {
    Kind.LINEAR: (FP8_TENSOR, W8, FLOAT32),
    Kind.CONV: (FP8_TENSOR, W8, FLOAT32),
    Kind.ATTENTION: (FP8_TENSOR, FLOAT32),
}
_LADDER_OF_FOUR_BITS = {
    Kind.LINEAR: (W4A8_TOKEN, W8A8_TOKEN, W8, FLOAT32),
    Kind.CONV: (W8A8_STATIC, W8, FLOAT32),
}
_LADDER_OF_WEIGHTS = {Kind.LINEAR: (W4, W8, FLOAT32), Kind.CONV: (W4, W8, FLOAT32)}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="fp32",
            kept=FLOAT32,
            max_relative_error=dict.fromkeys(Role, 1e-4),
            min_psnr_db=50.0,
        ),
        Recipe(
            name="fp16",
            kept=FLOAT16,
            max_relative_error=dict.fromkeys(Role, 1e-2),
            min_psnr_db=35.0,
        ),
        Recipe(
            name="int8",
            kept=FLOAT32,
            rules={
                Role.UNET: (
                    _KEEP_FROM_STATIC,
                    _rule(Kind.CONV, r".*", W8A8_STATIC),
                    _rule(Kind.LINEAR, r".*", W8A8_DYNAMIC),
                ),
                Role.CONDITIONER: _CONDITIONER,
                Role.TEXT_ENCODER: (_rule(Kind.LINEAR, r".*", W8A8_DYNAMIC), _TOKENS),
                Role.IMAGE_ENCODER: (_rule(Kind.LINEAR, r".*", W8A8_DYNAMIC),),
                Role.IMAGE_PROJECTION: _IMAGE_PROJECTION,
                Role.VAE_DECODER: _VAE_INNER,
                Role.VAE_ENCODER: _VAE_WEIGHTS,
            },
            ladder=_LADDER,
            max_relative_error=_limits(unet=0.06, text=0.04, decoder=0.02),
            min_psnr_db=30.0,
        ),
        Recipe(
            name="fp8",
            kept=FLOAT32,
            rules={
                Role.UNET: (
                    _KEEP_FROM_STATIC,
                    _rule(Kind.CONV, r".*", FP8_TENSOR),
                    _rule(Kind.LINEAR, r".*", FP8_TENSOR),
                    _rule(Kind.ATTENTION, r".*", FP8_TENSOR),
                ),
                **_WEIGHTS,
            },
            ladder=_LADDER_OF_FLOATS,
            max_relative_error=_limits(unet=0.06, text=0.03, decoder=0.01),
            min_psnr_db=33.0,
        ),
        Recipe(
            name="int8-weight",
            kept=FLOAT32,
            rules={
                Role.UNET: (
                    _KEEP_FROM_WEIGHTS,
                    _rule(Kind.CONV, r".*", W8),
                    _rule(Kind.LINEAR, r".*", W8),
                ),
                **_WEIGHTS,
            },
            ladder=_LADDER_OF_WEIGHTS,
            max_relative_error=_limits(unet=0.03, text=0.03, decoder=0.01),
            min_psnr_db=35.0,
        ),
        Recipe(
            name="int4",
            kept=FLOAT32,
            rules={
                Role.UNET: (
                    _KEEP_FROM_STATIC,
                    _rule(Kind.CONV, r".*", W8A8_STATIC),
                    _rule(Kind.LINEAR, r".*", W4A8_TOKEN),
                ),
                **_WEIGHTS,
                Role.VAE_DECODER: _VAE_INNER,
            },
            ladder=_LADDER_OF_FOUR_BITS,
            bits={Role.UNET: 5.0},
            max_relative_error=_limits(unet=0.2, text=0.03, decoder=0.02),
            min_psnr_db=24.0,
        ),
        Recipe(
            name="int4-weight",
            kept=FLOAT32,
            rules={
                Role.UNET: (
                    _KEEP_FROM_WEIGHTS,
                    _rule(Kind.CONV, r".*", W4),
                    _rule(Kind.LINEAR, r".*", W4),
                ),
                **_WEIGHTS,
            },
            ladder=_LADDER_OF_WEIGHTS,
            bits={Role.UNET: 4.7},
            max_relative_error=_limits(unet=0.2, text=0.03, decoder=0.01),
            min_psnr_db=24.0,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; `RequestError` lists those that there are."""
    try:
        return RECIPES[name]
    except KeyError:
        raise RequestError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}") from None
