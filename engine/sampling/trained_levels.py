"""The noise levels that a checkpoint was trained on, from its scheduler config.

float32 where torch computes in float32: a timestep is rounded from these, and one place more or less can move it.
"""

from collections.abc import Mapping
from math import cos, pi
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IncompatibleError

Array = npt.NDArray[np.float32]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

NEARLY_ZERO_SNR = np.float32(2**-24)
"""diffusers' stand-in for a signal of zero, so that the first sigma is 4096 and not infinite."""


def training_signal(config: Mapping[str, Any], *, keep_zero: bool) -> Array:
    """(num_train_timesteps,) float32 alphas_cumprod: how much of a training picture's power each timestep keeps.

    `config`: diffusers' scheduler config with every key there. With `rescale_betas_zero_snr` the last is zero
    (2305.08891, algorithm 1), or nearly zero unless `keep_zero`. Raises `IncompatibleError` for a schedule not known.
    """
    signal = _signal(_betas(config))
    if config["rescale_betas_zero_snr"]:
        signal = _signal(_rescale_to_zero(signal))
        if not keep_zero:
            signal[-1] = NEARLY_ZERO_SNR
    return signal


def _betas(config: Mapping[str, Any]) -> Array:
    count, start, end = config["num_train_timesteps"], config["beta_start"], config["beta_end"]
    if config["trained_betas"] is not None:
        trained = np.asarray(config["trained_betas"], dtype=np.float32)
        if trained.shape != (count,) or not ((trained >= 0) & (trained <= 1)).all():
            raise IncompatibleError(f"the checkpoint's trained_betas must be {count} numbers between 0 and 1.")
        return trained
    if config["beta_schedule"] == "linear":
        return _linspace(start, end, count)
    if config["beta_schedule"] == "scaled_linear":
        return _linspace(start**0.5, end**0.5, count) ** 2
    if config["beta_schedule"] == "squaredcos_cap_v2":
        kept = [cos((i / count + 0.008) / 1.008 * pi / 2) ** 2 for i in range(count + 1)]
        return np.asarray([min(1 - kept[i + 1] / kept[i], 0.999) for i in range(count)], dtype=np.float32)
    raise IncompatibleError(
        f"the checkpoint's beta_schedule is {config['beta_schedule']!r}; known are {', '.join(BETA_SCHEDULES)}."
    )


def _linspace(start: float, end: float, count: int) -> Array:
    """torch.linspace in float32: the step rounded once, values counted from the nearer end."""
    if count == 1:
        return np.asarray([start], dtype=np.float32)
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    values = np.where(index < count // 2, float(first) + step * index, float(last) - step * (count - 1 - index))
    return values.astype(np.float32)


def _signal(betas: Array) -> Array:
    # torch accumulates a float32 product in float64 on the CPU.
    return np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32)


def _rescale_to_zero(signal: Array) -> Array:
    """Betas whose amplitudes fall from the same first value, but all the way to zero."""
    amplitude = np.sqrt(signal)
    first, last = amplitude[0], amplitude[-1]
    amplitude = (amplitude - last) * (first / (first - last))
    power = amplitude**2
    alphas = np.concatenate([power[:1], power[1:] / power[:-1]])
    return np.asarray(np.float32(1) - alphas, dtype=np.float32)
