"""What a sampler is, and the schedule that it walks."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import hypot, isinf
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..levels.placement import Placement
from ..levels.settings import PredictionType, SchedulerSettings
from .calls import ONCE, Calls

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Where the sampler's steps lie, and where the model is asked: all of it known before the first step.

    A *step* goes from one noise level to the next; an *evaluation* is one call of the model. Most samplers evaluate
    once a step, heun and dpmpp_sde twice (but once in the last step). `begin` and `end` cut a part out of the
    evaluations, for base and refiner; the noise levels stay those of the whole schedule. Made by
    `schedule.make_schedule`.
    """

    sampler: "Sampler"
    name: str
    """One of `table.SCHEDULES`; `default` where timesteps or sigmas were given."""
    prediction_type: PredictionType
    num_train_timesteps: int
    timesteps: tuple[float, ...]
    """(evaluations,) what the model is asked at, in the order of the calls; fractional where diffusers' are."""
    evaluation_sigmas: tuple[float, ...]
    """(evaluations,) noise level of the latents at each call."""
    sigmas: tuple[float, ...]
    """(steps + 1,) noise-to-signal ratio, falling; infinite at zero terminal SNR for ddim, ddpm, lcm, tcd."""
    sigmas_next: tuple[float, ...]
    """(steps,) noise level after each step: `sigmas[1:]`, except that ddim strides as in training."""
    init_noise_sigma: float
    """Multiply latents of unit variance by this before the first step."""
    clip_sample_range: float | None = None
    """`denoised` is clipped to ± this where the checkpoint's scheduler asks for it and the reference obeys."""
    timestep_scaling: float = 10.0
    """lcm's boundary condition."""
    train_sigmas: tuple[float, ...] = ()
    """(num_train_timesteps,) the levels of training, rising; tcd jumps to those between the schedule's."""
    begin: int = 0
    end: int

    @property
    def steps(self) -> int:
        """Steps of the whole schedule, whatever the part."""
        return len(self.sigmas) - 1

    @property
    def evaluations(self) -> range:
        """The evaluations of this part, counted in the whole schedule."""
        return range(self.begin, self.end)


class Estimate(NamedTuple):
    """What one evaluation says about the latents: (pictures, C, H, W) each."""

    denoised: Array
    noise: Array


Estimator = Callable[[Array, int], Estimate]
"""(latents, evaluation) → estimate. Calls the model once."""


class Noise(Protocol):
    """A source of noise, one stream a picture: `noise.BatchNoise`."""

    def normal(self, shape: tuple[int, ...]) -> Array:
        """(pictures, *shape) float32 values of N(0, 1)."""


Walk = Generator[Array, Array, None]
"""Yields the latents after each evaluation, and is sent those to go on from: the same, or a caller's."""

Walker = Callable[[Array, Estimator, Schedule, Noise, float], Walk]
"""(latents, estimate, schedule, noise, eta) → walk over `schedule.evaluations`. Nothing is kept from part to part."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """One row of the table of samplers."""

    name: str
    label: str
    """Its name in A1111 and in infotexts."""
    aliases: tuple[str, ...] = ()
    """What else it is called: in ComfyUI, in A1111's files."""
    reference: str
    """The diffusers scheduler that it is held to, with the settings that make it so, or another's formulas."""
    walk: Walker
    scaled_input: bool
    """Latents are denoised + sigma·noise, divided by √(sigma² + 1) for the model; else they keep unit variance."""
    placement: Placement
    """How the reference lays its steps."""
    calls: Calls = ONCE
    """Where in a step the model is called."""
    falling: bool = False
    """Neighbouring noise levels must differ: the solver divides by their difference."""
    clips: bool = False
    """The reference obeys the config's `clip_sample`."""
    native: frozenset[str] = frozenset({"default", "karras", "exponential", "sgm_uniform", "beta"})
    """Schedules that the diffusers scheduler has; the others are ours."""
    eta: bool = False
    """It takes the option of this name."""
    defaults: SchedulerSettings = field(default_factory=SchedulerSettings)
    """What the reference's constructor assumes for entries that a scheduler config leaves out."""


def alpha_sigma(sigma: float) -> tuple[float, float]:
    """Noise-to-signal ratio → (alpha, sigma) of variance-preserving latents, with alpha² + sigma² = 1."""
    if isinf(sigma):
        return 0.0, 1.0
    alpha = 1.0 / hypot(1.0, sigma)
    return alpha, sigma * alpha
