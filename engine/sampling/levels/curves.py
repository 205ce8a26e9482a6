"""Noise levels of a schedule by formula: (steps,), falling from the first of `span` to its last.

`sigma_max` and `sigma_min` of a checkpoint take the place of those two. The formulas of normal, simple and ddim_uniform
are ComfyUI's and A1111's; they choose among the trained levels.
"""

from collections.abc import Callable, Mapping
from math import atan, log
from types import MappingProxyType

import numpy as np

from .align import align_your_steps
from .quantile import beta_quantile
from .settings import SchedulerSettings
from .spacing import Levels

KARRAS_RHO = 7.0

Curve = Callable[[int, Levels, SchedulerSettings], Levels]
"""(steps, span, settings) → (steps,) levels."""


def karras(steps: int, span: Levels, settings: SchedulerSettings) -> Levels:
    """Equation 5 of Karras et al. 2022 (2206.00364)."""
    high, low = _ends(span, settings)
    top, bottom = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
    return np.asarray((top + np.linspace(0, 1, steps) * (bottom - top)) ** KARRAS_RHO, dtype=np.float64)


def exponential(steps: int, span: Levels, settings: SchedulerSettings) -> Levels:
    """The same ratio from level to level."""
    high, low = _ends(span, settings)
    return np.exp(np.linspace(log(high), log(low), steps))


def beta(steps: int, span: Levels, settings: SchedulerSettings) -> Levels:
    """More steps at both ends: quantiles of a Beta distribution (Lee et al. 2024, 2407.12173), of the level itself.

    So have diffusers and A1111; ComfyUI takes them of the timestep.
    """
    high, low = _ends(span, settings)
    return low + beta_quantile(1 - np.linspace(0, 1, steps)) * (high - low)


def kl_optimal(steps: int, span: Levels, settings: SchedulerSettings) -> Levels:
    """Even in the angle whose tangent is the level: section 3.2 of Sabour et al. 2024 (2404.14507)."""
    high, low = _ends(span, settings)
    return np.tan(np.linspace(atan(high), atan(low), steps))


def normal(steps: int, ladder: Levels, settings: SchedulerSettings) -> Levels:
    """Even in the timestep, both ends included; levels between two are interpolated in their logarithms."""
    places = np.linspace(0, len(ladder) - 1, steps)
    return np.exp(np.interp(places, np.arange(len(ladder)), np.log(ladder)))


def simple(steps: int, ladder: Levels, settings: SchedulerSettings) -> Levels:
    """Every (trained / steps)-th trained level from the highest down, rounded up."""
    return ladder[(np.arange(steps) * (len(ladder) / steps)).astype(np.int64)]


def ddim_uniform(steps: int, ladder: Levels, settings: SchedulerSettings) -> Levels:
    """Every (trained // steps)-th trained level from the second lowest up.

    ComfyUI and A1111 go on to the top, with more steps than asked for where it does not divide; here the count holds.
    """
    stride = len(ladder) // steps
    lowest = min(1, len(ladder) - 1 - (steps - 1) * stride)
    return ladder[len(ladder) - 1 - lowest - np.arange(steps)[::-1] * stride]


def _ends(span: Levels, settings: SchedulerSettings) -> tuple[float, float]:
    return float(settings.sigma_max or span[0]), float(settings.sigma_min or span[-1])


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "karras": karras,
        "exponential": exponential,
        "beta": beta,
        "kl_optimal": kl_optimal,
        "align_your_steps": align_your_steps,
    }
)
"""By the name of the schedule."""

LADDERS: Mapping[str, Curve] = MappingProxyType({"normal": normal, "simple": simple, "ddim_uniform": ddim_uniform})
"""The same, over all trained levels (falling) in place of a span."""
