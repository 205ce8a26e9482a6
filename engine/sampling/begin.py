"""Beginning at a picture instead of at noise: which steps remain, and the noise that belongs to the first of them.

The rules are diffusers': `StableDiffusionXLImg2ImgPipeline.get_timesteps`, and each scheduler's `add_noise`.
"""

from dataclasses import replace

from ..errors import RequestError
from .samplers.base import Array, Schedule, alpha_sigma


def from_strength(schedule: Schedule, strength: float) -> Schedule:
    """The last `strength` of the steps, rounded down. Raises `RequestError` where none would be left."""
    steps = schedule.steps
    left = min(int(steps * strength), steps)
    if left < 1:
        raise RequestError(
            f"strength is {strength:g}, which leaves none of {steps} steps; raise it to {_least(steps):g}, or take "
            "more steps"
        )
    return from_step(schedule, steps - left)


def from_step(schedule: Schedule, step: int) -> Schedule:
    """The part from a step on, counted from 0."""
    return replace(schedule, begin=step * schedule.sampler.calls.per_step)


def noised(latents: Array, noise: Array, schedule: Schedule, evaluation: int) -> Array:
    """Clean latents of unit variance as they are before an evaluation, counted in the whole schedule; clean behind all.

    (pictures, C, H, W) each; at the noise that a caller's own `noise` of N(0, 1) makes.
    """
    if evaluation >= len(schedule.evaluation_sigmas):
        return latents
    sigma = schedule.evaluation_sigmas[evaluation]
    alpha, spread = (1.0, sigma) if schedule.sampler.scaled_input else alpha_sigma(sigma)
    found: Array = latents * alpha + noise * spread
    return found


def _least(steps: int) -> float:
    """The least strength, to three digits, that leaves a step."""
    thousandths = -(-1000 // steps)
    while int(steps * (thousandths / 1000)) < 1:
        thousandths += 1
    return thousandths / 1000
