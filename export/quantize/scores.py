"""Scores of self-attention in 8 bits, where a U-Net's linear layers are."""

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
