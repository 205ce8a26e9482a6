"""Timesteps and noise levels of a schedule, by the formulas of diffusers' `set_timesteps`.

`ladder` is (num_train_timesteps,) float32: the noise-to-signal ratio of every trained timestep, rising.
"""

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from .samplers.base import Sampler

Array = npt.NDArray[np.float32]
Levels = npt.NDArray[np.float64]

KARRAS_RHO = 7.0


def spaced(steps: int, spacing: str, settings: Mapping[str, Any], row: Sampler) -> Levels:
    """(steps,) timesteps, falling: table 2 of Lin et al. (2305.08891), as each family of schedulers rounds it."""
    trained: int = settings["num_train_timesteps"]
    if spacing == "trailing":
        return np.asarray(np.arange(trained, 0, -trained / steps)[:steps].round() - 1, dtype=np.float64)
    # The strided samplers lay one timestep more, and leave out the one that falls to (nearly) clean latents.
    count = steps + 1 if row.spacing == "strided" else steps
    if spacing == "leading":
        stride = trained // count
        return np.asarray(np.arange(count)[::-1][:steps] * stride + settings["steps_offset"], dtype=np.float64)
    even = np.linspace(0, trained - 1, count)
    even = even.astype(np.float32).astype(np.float64) if row.spacing == "spread" else even.round()
    return even[::-1][:steps]


def distilled(steps: int, settings: Mapping[str, Any]) -> Levels:
    """(steps,) timesteps out of those that an LCM was distilled on; raises `RequestError` where there are too few."""
    trained, taught = settings["num_train_timesteps"], settings["original_inference_steps"]
    if steps > taught:
        raise RequestError(
            f"num_inference_steps is {steps}; this checkpoint's lcm knows 1..{taught}, 4 to 8 are usual."
        )
    falling = np.arange(taught, 0, -1) * (trained // taught) - 1
    chosen = np.floor(np.linspace(0, taught, steps, endpoint=False)).astype(np.int64)
    return np.asarray(falling[chosen], dtype=np.float64)


def levels_at(timesteps: Levels, ladder: Array, row: Sampler) -> Levels:
    """Noise levels of timesteps, between two trained ones by interpolation."""
    if row.spacing in ("integer", "distilled"):
        return ladder[timesteps.astype(np.int64)].astype(np.float64)
    return np.interp(timesteps, np.arange(len(ladder)), ladder)


def curve(name: str, span: Levels, steps: int, settings: Mapping[str, Any]) -> Levels:
    """(steps,) levels from the first to the last of `span`: equation 5 of Karras et al. (2206.00364), or geometric."""
    high = float(settings["sigma_max"] or span[0])
    low = float(settings["sigma_min"] or span[-1])
    if name == "exponential":
        return np.exp(np.linspace(log(high), log(low), steps))
    top, bottom = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
    return np.asarray((top + np.linspace(0, 1, steps) * (bottom - top)) ** KARRAS_RHO, dtype=np.float64)


def timesteps_at(levels: Levels | Array, ladder: Array, row: Sampler, name: str) -> Levels:
    """The timesteps of noise levels, by interpolation of the logarithms; whole ones where the sampler wants those."""
    rungs = np.log(ladder)
    logs = np.log(np.maximum(levels, levels.dtype.type(1e-10)))
    below = np.clip(np.searchsorted(rungs.astype(logs.dtype), logs, side="right") - 1, 0, len(rungs) - 2)
    weight = np.clip((rungs[below] - logs) / (rungs[below] - rungs[below + 1]), 0, 1)
    timesteps = np.asarray((1 - weight) * below + weight * (below + 1), dtype=np.float64)
    if row.spacing == "spread":
        return timesteps
    # diffusers rounds karras timesteps, and cuts exponential ones off.
    return np.trunc(timesteps) if name == "exponential" and row.spacing == "strided" else timesteps.round()


def stride_landings(timesteps: Levels, ladder: Array, steps: int, clean: float) -> Levels:
    """Where ddim's steps land: num_train_timesteps // steps lower, be there a timestep of the schedule or not.

    For `linspace` there is none, quite; diffusers' pictures have that in them.
    """
    below = timesteps.astype(np.int64) - len(ladder) // steps
    return np.where(below >= 0, ladder[np.maximum(below, 0)].astype(np.float64), clean)
