"""Where in its steps a sampler calls the model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..levels.spacing import Levels

TimestepsAt = Callable[[Levels], Levels]


@dataclass(frozen=True, kw_only=True)
class Calls:
    """`per_step` calls in every step but the last, which has one."""

    per_step: int
    lay: Callable[[Levels, Levels, TimestepsAt], tuple[Levels, Levels]]
    """(sigmas where the steps begin, their timesteps, sigmas → timesteps) → (sigmas, timesteps) of all calls."""


def _once(sigmas: Levels, timesteps: Levels, timesteps_at: TimestepsAt) -> tuple[Levels, Levels]:
    return sigmas, timesteps


def _at_both_ends(sigmas: Levels, timesteps: Levels, timesteps_at: TimestepsAt) -> tuple[Levels, Levels]:
    return np.repeat(sigmas, 2)[1:], np.repeat(timesteps, 2)[1:]


def _at_the_middle(sigmas: Levels, timesteps: Levels, timesteps_at: TimestepsAt) -> tuple[Levels, Levels]:
    middles = np.sqrt(sigmas[:-1] * sigmas[1:])
    return _woven(sigmas, middles), _woven(timesteps, timesteps_at(middles))


def _woven(whole: Levels, between: Levels) -> Levels:
    woven = np.empty(len(whole) + len(between))
    woven[::2], woven[1::2] = whole, between
    return woven


ONCE = Calls(per_step=1, lay=_once)
ENDS = Calls(per_step=2, lay=_at_both_ends)
MIDDLE = Calls(per_step=2, lay=_at_the_middle)
