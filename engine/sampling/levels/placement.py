"""How each family of diffusers' schedulers lays its steps on the trained noise levels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from .between import (
    fractional_timesteps,
    interpolated_sigmas,
    rounded_or_cut_timesteps,
    rounded_timesteps,
    trained_sigmas,
)
from .ends import (
    all_trained,
    as_configured,
    lowest_of_curve,
    lowest_trained,
    one_stride_lower,
    set_alpha_to_one,
    spaced_levels,
    taught_levels,
    the_next,
    zero,
)
from .settings import SchedulerSettings
from .spacing import Levels, distilled, fractional, one_left_out, whole
from .trained import TrainSigmas

Spaced = Callable[[int, SchedulerSettings], Levels]
"""(steps, settings) → (steps,) timesteps."""
Span = Callable[[int, SchedulerSettings, TrainSigmas], Levels]
"""(steps, settings, train_sigmas) → levels, falling."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The habits of one family. All but the first three are functions over the trained levels."""

    default: Spaced
    """How the schedule `default` lays its timesteps."""
    spaced: Spaced
    """How they are laid by `timestep_spacing`; the same but for lcm."""
    whole_timesteps: bool
    """Timesteps are indices of the trained levels."""
    keeps_zero_snr: bool
    """A first timestep without signal has an infinite sigma, not diffusers' 4096."""
    sigmas_at: Callable[[Levels, TrainSigmas], Levels]
    """(timesteps, train_sigmas) → their noise levels."""
    timesteps_at: Callable[[Levels | TrainSigmas, TrainSigmas, str], Levels]
    """(sigmas, train_sigmas, schedule) → their timesteps."""
    curve_span: Span
    """From the first to the last of these levels karras goes."""
    final_sigma: Callable[[SchedulerSettings, TrainSigmas, Levels], float]
    """(settings, train_sigmas, sigmas) → the level after the last step."""
    final_curve_sigma: Callable[[SchedulerSettings, TrainSigmas, Levels], float]
    """The same after a curve."""
    sigmas_next: Callable[[Levels, Levels, TrainSigmas], Levels]
    """(timesteps, sigmas with the final one, train_sigmas) → (steps,) the level after each step."""
    ladder: Span = all_trained
    """Those among which normal and simple choose."""


FRACTIONAL = Placement(
    default=fractional,
    spaced=fractional,
    whole_timesteps=False,
    keeps_zero_snr=False,
    sigmas_at=interpolated_sigmas,
    timesteps_at=fractional_timesteps,
    curve_span=spaced_levels,
    final_sigma=zero,
    final_curve_sigma=zero,
    sigmas_next=the_next,
)
"""The solvers after k-diffusion: timesteps between two that were trained."""

FRACTIONAL_TO_FINAL = replace(FRACTIONAL, final_sigma=as_configured, final_curve_sigma=as_configured)
"""The same, obeying `final_sigmas_type`."""

MULTISTEP = Placement(
    default=one_left_out,
    spaced=one_left_out,
    whole_timesteps=True,
    keeps_zero_snr=False,
    sigmas_at=interpolated_sigmas,
    timesteps_at=rounded_or_cut_timesteps,
    curve_span=all_trained,
    final_sigma=as_configured,
    final_curve_sigma=as_configured,
    sigmas_next=the_next,
)
"""The DPM-Solvers."""

MULTISTEP_TO_CURVE = replace(MULTISTEP, final_curve_sigma=lowest_of_curve)
"""UniPC."""

TRAINED = Placement(
    default=whole,
    spaced=whole,
    whole_timesteps=True,
    keeps_zero_snr=True,
    sigmas_at=trained_sigmas,
    timesteps_at=rounded_timesteps,
    curve_span=all_trained,
    final_sigma=set_alpha_to_one,
    final_curve_sigma=zero,  # the curve itself goes down to the lowest trained level
    sigmas_next=one_stride_lower,
)
"""DDIM: at the timesteps of training."""

DISTILLED = replace(
    TRAINED,
    default=distilled,
    curve_span=taught_levels,
    ladder=taught_levels,
    final_sigma=zero,
    sigmas_next=the_next,
)
"""LCM: at the timesteps of its distillation."""

DISTILLED_TO_LOWEST = replace(DISTILLED, final_sigma=lowest_trained)
"""TCD: the same, down to the first trained timestep."""

POSTERIOR = replace(TRAINED, final_sigma=zero, sigmas_next=the_next)
"""DDPM: at the timesteps of training, each step down to the next of the schedule."""
