"""What a target adds to a recipe for U-Nets whose linear layers take 8 bits: scores in 8 bits, scales known before."""

from collections.abc import Collection
from dataclasses import replace

from ...engine.specs import Role
from .formats import Format, Kind
from .recipes import Recipe, Rule


def with_scores(recipe: Recipe, scores: Format, *, beside: Collection[Format], floats: Format) -> Recipe:
    """The recipe with `scores` in U-Nets whose linear layers have a format of `beside`, and a ladder to `floats`.

    A recipe of other linear layers stays as it is.
    """
    rows = recipe.rules.get(Role.UNET, ())
    if not any(rule.kind is Kind.LINEAR and rule.format in beside for rule in rows):
        return recipe
    return replace(
        recipe,
        rules={**recipe.rules, Role.UNET: (*rows, Rule(kind=Kind.ATTENTION, pattern=r".*", format=scores))},
        ladder={**recipe.ladder, Kind.ATTENTION: (scores, floats)},
    )


def with_static(recipe: Recipe, pattern: str, static: Format, *, beside: Format) -> Recipe:
    """The recipe with `static` in the layers of that pattern of U-Nets whose linear layers have the format `beside`.

    A ladder leads from it to `beside` and what may follow that. A recipe of other linear layers stays as it is.
    """
    rows = recipe.rules.get(Role.UNET, ())
    at = next((i for i, rule in enumerate(rows) if rule.kind is Kind.LINEAR and rule.format == beside), None)
    if at is None:
        return recipe
    rule = Rule(kind=Kind.LINEAR, pattern=pattern, format=static)
    return replace(
        recipe,
        rules={**recipe.rules, Role.UNET: (*rows[:at], rule, *rows[at:])},
        ladder={**recipe.ladder, Kind.LINEAR: (static, *recipe.ladder.get(Kind.LINEAR, (beside,)))},
    )
