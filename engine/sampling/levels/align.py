"""Align Your Steps: levels that were optimized for SDXL, ten of them, and other counts between those."""

import numpy as np

from .settings import SchedulerSettings
from .spacing import Levels

SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Ten steps, and the level after the last of them, in whose place pictures are made to the end. Source: the table that
Sabour et al. 2024 (2404.14507) published for SDXL; diffusers has it as `AysSchedules`, ending in 0."""


def align_your_steps(steps: int, span: Levels, settings: SchedulerSettings) -> Levels:
    """The table, or by the authors' rule for other counts: its logarithms, interpolated at `steps` + 1 places.

    `span` and the ends that a config names do not count: the table is of the levels as SDXL was trained on them.
    """
    places = np.linspace(0, len(SDXL) - 1, steps + 1)
    return np.exp(np.interp(places, np.arange(len(SDXL)), np.log(SDXL)))[:-1]
