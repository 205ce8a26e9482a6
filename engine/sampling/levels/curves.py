"""Noise levels of a schedule by formula: (steps,), falling from the first of `span` to its last.

`sigma_max` and `sigma_min` of a checkpoint take the place of those two.
"""

from collections.abc import Callable, Mapping
from math import log
from types import MappingProxyType

import numpy as np

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


def _ends(span: Levels, settings: SchedulerSettings) -> tuple[float, float]:
    return float(settings.sigma_max or span[0]), float(settings.sigma_min or span[-1])


CURVES: Mapping[str, Curve] = MappingProxyType({"karras": karras, "exponential": exponential})
"""By the name of the schedule."""
