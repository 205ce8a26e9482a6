"""What a preset stands for, under what the caller says beside it."""

from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..sampling.samplers.table import find_sampler
from .table import find_preset


def with_preset(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """A call's keywords with those of its `preset` below them: what is given counts instead.

    What belongs together gives way together: timesteps where steps, a schedule or levels are given; a schedule where
    levels or a sampler with a schedule in its name are; eta where another sampler has none; and a handoff asks for the
    refiner. Raises `RequestError` for an unknown preset.
    """
    given = dict(keywords)
    if given.get("preset") is None:
        return given
    options = find_preset(given["preset"]).options()
    said = {name for name, value in given.items() if value is not None}
    if said & {"timesteps", "sigmas"}:
        _drop(options, "timesteps", "schedule")
    if said & {"num_inference_steps", "schedule"}:
        _drop(options, "timesteps")
    if "denoising_end" in said:
        _drop(options, "refiner")
    if "sampler" in said:
        _give_way_to(given["sampler"], options)
    return {**options, **{name: value for name, value in given.items() if name in said or name not in options}}


def _give_way_to(sampler: object, options: dict[str, Any]) -> None:
    """Another sampler: what of the preset does not fit it goes."""
    try:
        row, schedule = find_sampler(str(sampler))
    except RequestError:
        return  # told later, with everything else
    if schedule != "default":
        _drop(options, "schedule", "timesteps")
    if not row.eta:
        _drop(options, "eta")


def _drop(options: dict[str, Any], *names: str) -> None:
    for name in names:
        options.pop(name, None)
