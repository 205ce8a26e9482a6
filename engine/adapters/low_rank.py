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
_RESOLUTION = 1e-6
"""Of squares: what two float32 sums cannot tell apart."""


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
    beyond = 0.0
    if min(delta.shape) <= 4 * (rank + _MORE):
        u, s, v = np.linalg.svd(delta, full_matrices=False)
    else:
        draws = np.random.default_rng(0).standard_normal((delta.shape[1], rank + _MORE), np.float32)
        basis = np.linalg.qr(delta @ draws)[0]
        for _ in range(_ROUNDS):
            basis = np.linalg.qr(delta @ np.linalg.qr(delta.T @ basis)[0])[0]
        inner, s, v = np.linalg.svd(basis.T @ delta, full_matrices=False)
        u = basis @ inner
        whole, found = (float(np.sum(x * x, dtype=np.float64)) for x in (delta, s))
        beyond = whole - found if whole - found > _RESOLUTION * whole else 0.0
    kept, error = _kept(s, beyond, rank)
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
    kept, error = _kept(products[order], 0.0, rank)
    p, q = np.divmod(order[:kept], len(s2))
    root = np.sqrt(products[order[:kept]])
    up = np.einsum("ar,cr->acr", u1[:, p], u2[:, q]).reshape(len(first) * len(second), kept) * root
    down = np.einsum("rb,rdk->rbdk", v1[p], v2[q].reshape(kept, second.shape[1], -1)).reshape(kept, -1)
    return Factors(up=up, down=down * root[:, None], error=error)


def _kept(directions: Floats, beyond: float, rank: int) -> tuple[int, float]:
    """How many of the falling `directions` are kept, and the norm of what is left out.

    `beyond`: the square of what lies in none of them.
    """
    squares = directions.astype(np.float64) ** 2
    left = np.append(np.cumsum(squares[::-1])[::-1][1:], 0.0) + beyond
    whole = float(squares.sum() + beyond)
    if whole == 0.0:
        return 1, 0.0
    exact = np.flatnonzero(left[:rank] <= EXACT**2 * whole)
    if len(exact):
        return int(exact[0]) + 1, 0.0
    near = np.flatnonzero(left[:rank] <= ENOUGH**2 * whole)
    kept = int(near[0]) + 1 if len(near) else min(rank, len(directions))
    return kept, float(np.sqrt(left[kept - 1]))
