"""Structural similarity of pictures: what an eye sees of a difference, beside the decibels of `parity`.

SSIM of Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity"
(2004), with the paper's own window and constants, on every channel, and the mean of the map.
"""

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.floating]
WINDOW, SIGMA = 11, 1.5
"""Pixels of the Gaussian window and its standard deviation."""
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
"""The paper's constants, for numbers in [0, 1]."""


def ssim(pictures: Pictures, references: Pictures) -> npt.NDArray[np.float64]:
    """Mean SSIM of each picture and its reference, `(n,)`, at most 1; both `(n, H, W, C)` in [0, 1].

    Only windows that lie in the picture as a whole count. `ValueError`: shapes differ, or a side is below `WINDOW`.
    """
    if pictures.shape != references.shape or pictures.ndim != 4 or min(pictures.shape[1:3]) < WINDOW:
        raise ValueError(
            f"pictures are {pictures.shape} and references {references.shape}; "
            f"give two of (n, H, W, C), with sides of {WINDOW} pixels at least"
        )
    return np.array([_ssim(*pair) for pair in zip(pictures, references, strict=True)], np.float64)


def _ssim(picture: Pictures, reference: Pictures) -> float:
    x, y = picture.astype(np.float64), reference.astype(np.float64)
    x_mean, y_mean = _blurred(x), _blurred(y)
    x_variance, y_variance = _blurred(x * x) - x_mean**2, _blurred(y * y) - y_mean**2
    covariance = _blurred(x * y) - x_mean * y_mean
    alike = (2 * x_mean * y_mean + _LUMINANCE) * (2 * covariance + _CONTRAST)
    most = (x_mean**2 + y_mean**2 + _LUMINANCE) * (x_variance + y_variance + _CONTRAST)
    return float((alike / most).mean())


def _blurred(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The Gaussian mean of every whole window: `(H, W, C)` → `(H - WINDOW + 1, W - WINDOW + 1, C)`."""
    at = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (at / SIGMA) ** 2)
    window /= window.sum()
    for axis in (0, 1):  # the window is a product of two: one side after the other
        values = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis) @ window
    return values
