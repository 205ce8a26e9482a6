"""Whether a target can do a recipe: the one place that asks, and names the alternatives."""

from ...engine.errors import RequestError
from ..quantize.recipes import RECIPES, Recipe
from ..target import Target


def lacking(target: Target, recipe: Recipe) -> list[str]:
    """The recipe's formats that the target cannot do, each with its kind of layer: `conv w8a8_static`."""
    return [
        f"{kind} {format}"
        for kind, formats in recipe.formats().items()
        for format in formats
        if format not in target.formats.get(kind, ())
    ]


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
