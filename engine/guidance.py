"""Classifier-free guidance."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def guide(unconditional: Array, conditional: Array, scale: float, rescale: float = 0.0) -> Array:
    """Push the prediction away from the negative prompt's: unconditional + scale·(conditional - unconditional).

    Arrays (pictures, C, H, W) float32. `rescale` in 0..1 pulls each picture's spread back to the conditional's, against
    overexposure at high scales: section 3.4 of Lin et al. 2023 (2305.08891); diffusers' `rescale_noise_cfg`.
    """
    guided = unconditional + (conditional - unconditional) * scale
    if rescale <= 0:
        return guided
    wanted, found = _spread(conditional), _spread(guided)
    # A constant prediction has no spread to rescale.
    factor = np.divide(wanted, found, out=np.ones_like(wanted), where=found > 0)
    return np.asarray(guided * (rescale * factor + (1 - rescale)), dtype=np.float32)


def _spread(prediction: Array) -> Array:
    axes = tuple(range(1, prediction.ndim))
    return np.asarray(prediction.std(axis=axes, ddof=1, keepdims=True, dtype=np.float64), dtype=np.float32)
