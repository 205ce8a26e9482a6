"""What a job's components, and the run that they are measured by, depend on: its parts without the others'."""

from typing import Any

from ..engine.specs import Role
from ..engine.tiny import TINY_DECODER
from .job import KEPT, MACHINE, TINY, Job
from .publish.keys import component_key
from .quantize.recipes import Recipe
from .reference.prompts import PROMPTS, WATCHED, WATCHED_TO_THE_END
from .target import LIBRARIES

# Components and the reference depend on what a recipe does with them, not on these parts of the whole.
_OF_THE_RECIPE = ("recipe", "recipe content", KEPT)


def component_keys(job: Job) -> dict[str, str]:
    """Component → key, the same for all recipes that do the same with it.

    They depend on every weight, for the reference's run goes through all, and on what becomes of the other component
    that is made from the same weights: both are smoothed together.
    """
    parts = {name: value for name, value in job.parts.items() if name not in _OF_THE_RECIPE}
    components = job.assembly.components
    keys = {}
    for name, component in components.items():
        related = [other for other, one in components.items() if one.source == component.source]
        used = {part: value for part, value in parts.items() if part != TINY or name == TINY_DECODER}
        own = [_of_recipe(job.recipes[other], components[other].spec.role) for other in related]
        keys[name] = component_key(used, job.assembly.digests, component=name, recipe=own)
    return keys


def reference_key(job: Job) -> str:
    """The key of the reference run, in which target and recipe have no say, but for how long it is."""
    of_target = {f"library {name}" for name in set(job.target.libraries) - set(LIBRARIES)}
    parts = {
        name: value
        for name, value in job.parts.items()
        if name not in (*_OF_THE_RECIPE, "target", TINY) and not name.startswith(MACHINE) and name not in of_target
    }
    return component_key(
        parts,
        job.assembly.digests,
        prompts=[PROMPTS, WATCHED, WATCHED_TO_THE_END],
        size=job.size,
        run=job.recipe.calibration,
    )


def _of_recipe(recipe: Recipe, role: Role) -> list[Any]:
    rules, bits, most = recipe.rules.get(role, ()), recipe.bits.get(role), recipe.max_relative_error[role]
    return [recipe.kept, rules, recipe.ladder, bits, most, recipe.calibration]
