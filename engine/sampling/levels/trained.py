"""The noise levels that a checkpoint was trained on.

float32 where torch computes in float32: a timestep is rounded from these, and one place more or less can move it.
"""

from math import cos, pi

import numpy as np
import numpy.typing as npt

from .settings import BetaSchedule, SchedulerSettings

TrainSigmas = npt.NDArray[np.float32]
"""(num_train_timesteps,) the noise-to-signal ratio of every trained timestep, rising."""

NEARLY_ZERO_SNR = np.float32(2**-24)
"""diffusers' stand-in for a signal of zero, so that the first sigma is 4096 and not infinite."""


def train_sigmas(settings: SchedulerSettings, *, keep_zero: bool) -> TrainSigmas:
    """The noise-to-signal ratio of every trained timestep; at zero terminal SNR the last is infinite if `keep_zero`."""
    kept = alphas_cumprod(settings, keep_zero=keep_zero)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sigmas: TrainSigmas = np.sqrt((np.float32(1) - kept) / kept)
    return sigmas


def alphas_cumprod(settings: SchedulerSettings, *, keep_zero: bool) -> npt.NDArray[np.float32]:
    """(num_train_timesteps,) float32: how much of a training picture's power each timestep keeps.

    With `rescale_betas_zero_snr` the last is zero (2305.08891, algorithm 1), or nearly zero unless `keep_zero`.
    """
    kept = _cumulated(_betas(settings))
    if settings.rescale_betas_zero_snr:
        kept = _cumulated(_rescaled_to_zero(kept))
        if not keep_zero:
            kept[-1] = NEARLY_ZERO_SNR
    return kept


def _betas(settings: SchedulerSettings) -> npt.NDArray[np.float32]:
    if settings.trained_betas is not None:
        return np.asarray(settings.trained_betas, dtype=np.float32)
    start, end, count = settings.beta_start, settings.beta_end, settings.num_train_timesteps
    match settings.beta_schedule:
        case BetaSchedule.LINEAR:
            return _linspace(start, end, count)
        case BetaSchedule.SCALED_LINEAR:
            return _linspace(start**0.5, end**0.5, count) ** 2
        case BetaSchedule.SQUAREDCOS_CAP_V2:
            kept = [cos((i / count + 0.008) / 1.008 * pi / 2) ** 2 for i in range(count + 1)]
            return np.asarray([min(1 - kept[i + 1] / kept[i], 0.999) for i in range(count)], dtype=np.float32)


def _linspace(start: float, end: float, count: int) -> npt.NDArray[np.float32]:
    """torch.linspace in float32: the step rounded once, values counted from the nearer end."""
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    values = np.where(index < count // 2, float(first) + step * index, float(last) - step * (count - 1 - index))
    return values.astype(np.float32)


def _cumulated(betas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # torch accumulates a float32 product in float64 on the CPU.
    return np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32)


def _rescaled_to_zero(kept: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Betas whose amplitudes fall from the same first value, but all the way to zero."""
    amplitude = np.sqrt(kept)
    first, last = amplitude[0], amplitude[-1]
    amplitude = (amplitude - last) * (first / (first - last))
    power = amplitude**2
    alphas = np.concatenate([power[:1], power[1:] / power[:-1]])
    return np.asarray(np.float32(1) - alphas, dtype=np.float32)
