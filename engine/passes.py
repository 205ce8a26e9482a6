"""The passes of a call, and the part of a schedule that each walks: from noise, a picture, or the pass before."""

from dataclasses import replace

import numpy as np

from .errors import RequestError
from .pictures_in.input import PictureInput
from .request.hires import second_input
from .request.request import ResolvedRequest
from .sampling.begin import from_step, from_strength
from .sampling.samplers.base import Schedule
from .sampling.schedule import split


def begun(schedule: Schedule, given: PictureInput | None) -> Schedule:
    """The part of a schedule that is walked from a picture."""
    if given is None:
        return schedule
    if given.denoising_start is not None:
        return split(schedule, given.denoising_start)[1]
    if given.first_step is not None:
        return from_step(schedule, given.first_step)
    return from_strength(schedule, given.strength)


def some(parts: dict[str, Schedule]) -> dict[str, Schedule]:
    """The same, which must have a step to make."""
    if not any(part.evaluations for part in parts.values()):
        raise RequestError(
            "denoising_start leaves no step before denoising_end or the last one; move them apart, or take more steps"
        )
    return parts


def first_pass(request: ResolvedRequest) -> ResolvedRequest:
    """The smaller pass, by the base to its end."""
    return replace(request, hires=None, kinds=request.kinds[:1], denoising_end=None)


def second_pass(request: ResolvedRequest) -> ResolvedRequest:
    """The larger pass, without what it begins from: there is none yet, which its kind tells."""
    hires, size = request.hires, (request.height, request.width)
    assert hires is not None
    steps = hires.whole_steps(request.num_inference_steps)
    given, made = second_input(hires, steps), (hires.height, hires.width)
    return replace(
        request,
        hires=None,
        height=hires.height,
        width=hires.width,
        num_inference_steps=steps,
        latents=None,
        pictures=replace(given, latents=np.empty(0, np.float32)) if hires.upscaler == "latent" else given,
        controls=tuple(use.sized(*made) for use in request.controls),
        adapters=tuple(use.sized(*made) for use in request.adapters),
        original_size=made if request.original_size == size else request.original_size,
        target_size=made if request.target_size == size else request.target_size,
    )
