"""Group norms of a whole picture from what its bands tell.

Each band tells the mean of a channel and the mean squared deviation *from that mean*, which has a good precision
however far from zero the channel is; they are joined in float64 (Chan, Golub and LeVeque 1979).
"""

import numpy as np
import numpy.typing as npt

from .program import Norm

Doubles = npt.NDArray[np.float64]


class Statistics:
    """Of one value: how many numbers each channel had so far, their mean, and the squared deviations from it."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._mean: Doubles = np.zeros(channels)
        self._squares: Doubles = np.zeros(channels)

    def add(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        """A band's `count` numbers of each channel, their mean and their mean squared deviation, both `[channels]`."""
        total = self._count + count
        apart = mean.astype(np.float64) - self._mean
        self._mean = self._mean + apart * (count / total)
        self._squares = self._squares + count * squares.astype(np.float64) + apart**2 * (self._count * count / total)
        self._count = total

    def of(self, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
        """Each channel's group mean and reciprocal standard deviation, both `[channels]` float32."""
        means, squares = (x.reshape(norm.groups, -1) for x in (self._mean, self._squares))
        mean = means.mean(1, keepdims=True)
        variance = (squares.mean(1, keepdims=True) / self._count) + np.square(means - mean).mean(1, keepdims=True)
        deviation = 1 / np.sqrt(variance + norm.epsilon)
        return tuple(np.broadcast_to(x, means.shape).reshape(-1).astype(np.float32) for x in (mean, deviation))  # type: ignore[return-value]
