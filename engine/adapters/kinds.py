"""The kinds of adapters that are, or can be written as, low-rank pairs: what each stores, and its factors.

Formulas: LoRA and its Tucker form (`mid`), LoHa and LoKr as in KohakuBlueleaf/LyCORIS; tests hold each to its code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ..stored.header import StoredTensor
from .keys import ALPHA, DOWN, MID, UP
from .low_rank import MOST_RANK, Factors, Floats, kronecker, truncated

Shapes = Mapping[str, tuple[int, ...]]
"""Of one module's tensors, by part."""
Tensors = Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind: a row of `KINDS`."""

    name: str
    mark: tuple[str, ...]
    """Parts of which one is enough to tell the kind."""
    parts: frozenset[str]
    """All parts that it may have, alpha besides."""
    size: Callable[[Shapes], tuple[int, int]]
    """Rows and columns of the difference as a matrix. Raises `KeyError` (a part is missing) or `ValueError` (parts that
    do not fit each other)."""
    factors: Callable[[Tensors], Factors]
    """The difference, before it is scaled."""
    rank: Callable[[Shapes], int]
    """What alpha is divided by; 0 for a kind that has no alpha."""


def kind_of(parts: Mapping[str, object]) -> Kind | None:
    """The kind of a module with these parts; None if it is none of these."""
    return next((kind for kind in KINDS if any(mark in parts for mark in kind.mark)), None)


def _lora_size(shapes: Shapes) -> tuple[int, int]:
    down, up = shapes[DOWN], shapes[UP]
    rank = up[1] if len(up) > 1 else 0
    if MID in shapes:
        mid = shapes[MID]
        _agree(len(down) >= 2 and len(mid) == 4 and mid[:2] == (rank, down[0]) and prod(down[2:]) == 1)
        columns = down[1] * prod(mid[2:])
    else:
        _agree(len(down) >= 2 and down[0] == rank)
        columns = prod(down[1:])
    _agree(prod(up[2:]) == 1 and rank > 0)
    return up[0], columns


def _lora(tensors: Tensors) -> Factors:
    down, up = tensors[DOWN], tensors[UP]
    up = up.reshape(up.shape[:2])
    if MID in tensors:
        down = np.einsum("rshw,si->rihw", tensors[MID], down.reshape(down.shape[:2]), optimize=True)
    return Factors(up=up, down=down.reshape(len(down), -1))


def _loha_size(shapes: Shapes) -> tuple[int, int]:
    sizes = []
    for half in "12":
        a, b, core = shapes[f"hada_w{half}_a"], shapes[f"hada_w{half}_b"], shapes.get(f"hada_t{half}")
        _agree(len(a) == 2 and len(b) >= 2)
        if core is None:
            _agree(a[1] == b[0] > 0)
            sizes.append((a[0], prod(b[1:])))
        else:
            _agree(len(core) == 4 and len(b) == 2 and core[:2] == (a[0], b[0]))
            sizes.append((a[1], b[1] * prod(core[2:])))
    _agree(sizes[0] == sizes[1])
    return sizes[0]


def _loha(tensors: Tensors) -> Factors:
    """A product, element by element, of two matrices of rank r: of rank r² at most, with known factors."""
    a1, b1, a2, b2 = (tensors[f"hada_w{half}_{side}"] for half in "12" for side in "ab")
    if "hada_t1" in tensors:
        halves = [
            np.einsum("ijhw,ip,jr->prhw", tensors[f"hada_t{half}"], a, b, optimize=True)
            for half, a, b in (("1", a1, b1), ("2", a2, b2))
        ]
        return truncated((halves[0] * halves[1]).reshape(len(halves[0]), -1))
    b1, b2 = b1.reshape(len(b1), -1), b2.reshape(len(b2), -1)
    if a1.shape[1] * a2.shape[1] <= MOST_RANK:
        return Factors(
            up=np.einsum("oi,oj->oij", a1, a2).reshape(len(a1), -1),
            down=np.einsum("ic,jc->ijc", b1, b2).reshape(-1, b1.shape[1]),
        )
    return truncated((a1 @ b1) * (a2 @ b2))


def _lokr_halves(shapes: Shapes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the two matrices whose Kronecker product it is."""
    if "lokr_w1" in shapes:
        first = shapes["lokr_w1"]
    else:
        a, b = shapes["lokr_w1_a"], shapes["lokr_w1_b"]
        _agree(len(a) == len(b) == 2 and a[1] == b[0])
        first = (a[0], b[1])
    if "lokr_w2" in shapes:
        second = shapes["lokr_w2"]
    else:
        a, b, core = shapes["lokr_w2_a"], shapes["lokr_w2_b"], shapes.get("lokr_t2")
        _agree(len(a) == 2 and len(b) >= 2)
        if core is None:
            _agree(a[1] == b[0])
            second = (a[0], *b[1:])
        else:
            _agree(len(b) == 2 and len(core) == 4 and core[:2] == (a[0], b[0]))
            second = (a[1], b[1], *core[2:])
    _agree(len(first) == 2 and len(second) in (2, 4) and prod(first) * prod(second) > 0)
    return first, second


def _lokr_size(shapes: Shapes) -> tuple[int, int]:
    first, second = _lokr_halves(shapes)
    return first[0] * second[0], first[1] * prod(second[1:])


def _lokr(tensors: Tensors) -> Factors:
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        second = tensors["lokr_w2"]
    elif "lokr_t2" in tensors:
        a, b, core = (tensors[name] for name in ("lokr_w2_a", "lokr_w2_b", "lokr_t2"))
        second = np.einsum("ijhw,ip,jr->prhw", core, a, b, optimize=True)
    else:
        a, b = tensors["lokr_w2_a"], tensors["lokr_w2_b"]
        second = (a @ b.reshape(len(b), -1)).reshape(len(a), *b.shape[1:])
    return kronecker(first, second)


def _lokr_rank(shapes: Shapes) -> int:
    """Of the last half that is factored; two whole halves have no alpha."""
    for half in ("lokr_w2_b", "lokr_w1_b"):
        if half in shapes:
            return shapes[half][0]
    return 0


def _full_size(shapes: Shapes) -> tuple[int, int]:
    delta = shapes["diff"]
    _agree(len(delta) in (2, 4) and prod(delta) > 0)
    return delta[0], prod(delta[1:])


def _agree(fits: bool) -> None:
    if not fits:
        raise ValueError("the parts do not fit each other")


KINDS = (
    Kind(
        name="LoRA",
        mark=(DOWN, UP),
        parts=frozenset({DOWN, UP, MID}),
        size=_lora_size,
        factors=_lora,
        rank=lambda shapes: shapes[UP][1],
    ),
    Kind(
        name="LoHa",
        mark=("hada_w1_a", "hada_w1_b"),
        parts=frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
        size=_loha_size,
        factors=_loha,
        rank=lambda shapes: shapes["hada_w1_b"][0],
    ),
    Kind(
        name="LoKr",
        mark=("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"),
        parts=frozenset(
            {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"},
        ),
        size=_lokr_size,
        factors=_lokr,
        rank=_lokr_rank,
    ),
    Kind(
        name="full difference",
        mark=("diff",),
        parts=frozenset({"diff"}),
        size=_full_size,
        factors=lambda tensors: truncated(tensors["diff"].reshape(len(tensors["diff"]), -1)),
        rank=lambda shapes: 0,
    ),
)


def shapes_of(stored: Mapping[str, StoredTensor]) -> Shapes:
    """The shapes of a module's tensors, its alpha left out."""
    return {part: tensor.shape for part, tensor in stored.items() if part != ALPHA}
