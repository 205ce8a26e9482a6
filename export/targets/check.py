"""Whether a target can do a recipe: the one place that asks, and names the alternatives."""

from collections.abc import Mapping
from dataclasses import replace

from ...engine.architecture import UNetArchitecture
from ...engine.errors import IncompatibleError, RequestError
from ...engine.specs import Role
from ..quantize.formats import FLOAT16, FLOAT32, Kind
from ..quantize.recipes import RECIPES, Recipe
from ..target import Target
from .rtx.heads import FUSED_HEADS

_FLOATS = {"float32": FLOAT32, "float16": FLOAT16}


def fitted(recipe: Recipe, target: Target) -> Recipe:
    """The recipe with what the target has in place of its formats, and with the floats that the target computes in.

    Tables are in floats if it has no others: they are looked up and not multiplied with, so that their numbers are a
    matter of size alone.
    """
    tables = target.formats.get(Kind.EMBEDDING, frozenset())
    rules = {
        role: tuple(r for r in rows if r.kind is not Kind.EMBEDDING or r.format in tables)
        for role, rows in recipe.rules.items()
    }
    return replace(recipe, rules=rules).with_formats(target.instead).of_floats(_FLOATS[target.dtype])


def lacking(target: Target, recipe: Recipe) -> list[str]:
    """The recipe's formats that the target cannot do, each with its kind of layer: `conv w8a8_static`."""
    found = [
        f"{kind} {format}"
        for role in Role
        for kind, formats in fitted(recipe, target.of(role)).formats(role).items()
        for format in formats
        if format not in target.of(role).formats.get(kind, ())
    ]
    return list(dict.fromkeys(found))


def recipes_for(target: Target) -> tuple[str, ...]:
    """The names of the recipes whose every format the target can do."""
    return tuple(name for name, recipe in RECIPES.items() if not lacking(target, recipe))


def check(target: Target, recipe: Recipe) -> None:
    """Raise `RequestError` that names what the target lacks, and the recipes that it can do."""
    if missing := lacking(target, recipe):
        raise RequestError(
            f"target {target.name} cannot do recipe {recipe.name!r}, which needs {', '.join(missing)}: "
            f"choose one of {', '.join(recipes_for(target))}"
        )


_HEADS: Mapping[str, range] = {"cuda": range(64, 65), "tensorrt": FUSED_HEADS, "tensorrt_full": FUSED_HEADS}
"""Kind of runner → how many numbers a head of a U-Net's attention may have; others take any."""


def check_heads(target: Target, kind: str, unet: UNetArchitecture) -> None:
    """Raise `IncompatibleError` for a U-Net whose attention the target has no kernels for."""
    allowed = _HEADS.get(target.of(Role.UNET).runner)
    heads = sorted({block.out_channels // block.heads for block in unet.transformers()})
    if allowed is not None and not all(head in allowed for head in heads):
        least, most = allowed[0], allowed[-1]
        raise IncompatibleError(
            f"attention of the {kind} has heads of {', '.join(map(str, heads))} numbers; target {target.name} has "
            f"kernels for {least if least == most else f'{least} to {most}'}: build with --target cpu or onnx-fp16"
            + ("" if allowed is FUSED_HEADS else ", or rtx")
        )
