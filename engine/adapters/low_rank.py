"""A matrix, or a Kronecker product of two, as a low-rank pair, and what that leaves out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
EXACT = 1e-5
"""Relative error that float32 sums leave anyway."""
ENOUGH = 0.01
"""Of approximations: no more directions are kept once the error is below this."""
MOST_RANK = 128
"""An approximation's greatest rank; every direction costs time in the loop."""
_MORE = 16
"""Directions looked for beyond those that are kept, and rounds of refining (Halko et al., 2011, section 4.5)."""
_ROUNDS = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """`up @ down`, `[out, rank] @ [rank, columns]`, in place of a difference of weights."""

    up: Floats
    down: Floats
    error: float = 0.0
    """Frobenius norm of what the factors leave out."""

    def size(self) -> float:
        """Frobenius norm of the difference, what is left out included."""
        kept = float(np.sum((self.up.T @ self.up) * (self.down @ self.down.T), dtype=np.float64))
        return float(np.sqrt(max(kept, 0.0) + self.error**2))


def truncated(delta: Floats, rank: int = MOST_RANK) -> Factors:
    """The best factors of a matrix `[out, columns]`: its greatest directions, as few as `ENOUGH` asks, `rank` at most.

    Directions of a large matrix are found by randomized iteration, whose numbers are always the same.
    """
    norm = float(np.linalg.norm(delta))
    short = min(delta.shape)
    if norm == 0.0:
        return Factors(up=np.zeros((len(delta), 1), np.float32), down=np.zeros((1, delta.shape[1]), np.float32))
    if short <= 4 * (rank + _MORE):
        u, s, v = np.linalg.svd(delta, full_matrices=False)
    else:
        draws = np.random.default_rng(0).standard_normal((delta.shape[1], rank + _MORE), np.float32)
        basis = np.linalg.qr(delta @ draws)[0]
        for _ in range(_ROUNDS):
            basis = np.linalg.qr(delta @ np.linalg.qr(delta.T @ basis)[0])[0]
        inner, s, v = np.linalg.svd(basis.T @ delta, full_matrices=False)
        u = basis @ inner
    kept, error = _kept(s, norm, rank)
    root = np.sqrt(s[:kept])
    return Factors(up=u[:, :kept] * root, down=v[:kept] * root[:, None], error=error)


def kronecker(first: Floats, second: Floats, rank: int = MOST_RANK) -> Factors:
    """The same of `kron(first, second)`, without making it; `second` may be a convolution's `[c, d, kh, kw]`.

    Its directions are the products of theirs.
    """
    u1, s1, v1 = np.linalg.svd(first, full_matrices=False)
    u2, s2, v2 = np.linalg.svd(second.reshape(len(second), -1), full_matrices=False)
    products = np.outer(s1, s2).ravel()
    order = np.argsort(-products, kind="stable")
    norm = float(np.linalg.norm(s1) * np.linalg.norm(s2))
    if norm == 0.0:
        kept, error = 1, 0.0
    else:
        kept, error = _kept(products[order], norm, rank)
    p, q = np.divmod(order[:kept], len(s2))
    root = np.sqrt(products[order[:kept]])
    up = np.einsum("ar,cr->acr", u1[:, p], u2[:, q]).reshape(len(first) * len(second), kept) * root
    down = np.einsum("rb,rdk->rbdk", v1[p], v2[q].reshape(kept, second.shape[1], -1)).reshape(kept, -1)
    return Factors(up=up, down=down * root[:, None], error=error)


def _kept(directions: Floats, norm: float, rank: int) -> tuple[int, float]:
    """How many of the falling `directions` are kept, and the norm of what is left out."""
    left = np.sqrt(np.maximum(norm**2 - np.cumsum(directions.astype(np.float64) ** 2), 0.0)) / norm
    exact = np.flatnonzero(left[:rank] <= EXACT)
    if len(exact):
        return int(exact[0]) + 1, 0.0
    near = np.flatnonzero(left[:rank] <= ENOUGH)
    kept = int(near[0]) + 1 if len(near) else min(rank, len(directions))
    return kept, float(left[kept - 1]) * norm
