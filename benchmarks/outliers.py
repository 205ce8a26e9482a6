"""Channels made larger by a factor that the next layer takes back: where a network allows that exactly.

Between a norm or a linear layer and what reads it there is often nothing but a sum or a product, so that a channel can
be multiplied on one side and divided on the other; in real numbers the network stays the same. That is how channels of
very different size, for which SDXL is known, come into a network whose answers are known. (The same freedom is what
smoothing uses: Xiao et al., SmoothQuant, 2022.)
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Shapes = Mapping[str, tuple[int, ...]]
KINDS = ("norm", "geglu", "value", "query_key", "group_norm")
"""A transformer's norms → its linear layers; the GEGLU's value half → the second linear; attention's values → its
output; its queries ↔ its keys; the GroupNorm before the blocks → `proj_in`."""
ROWS, COLUMNS = 0, 1


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """Layers under one prefix: the channels of `larger` grow, and `smaller` takes them back along `axis`."""

    kind: str
    larger: str
    smaller: tuple[str, ...]
    axis: int = COLUMNS
    share: int = 1
    """How many parts the rows of `larger` have; the first one holds the channels."""


_RULES = (
    _Rule(kind="norm", larger="norm1", smaller=("attn1.to_q", "attn1.to_k", "attn1.to_v")),
    _Rule(kind="norm", larger="norm2", smaller=("attn2.to_q",)),
    _Rule(kind="norm", larger="norm3", smaller=("ff.net.0.proj",)),
    _Rule(kind="geglu", larger="ff.net.0.proj", smaller=("ff.net.2",), share=2),
    *(_Rule(kind="value", larger=f"attn{i}.to_v", smaller=(f"attn{i}.to_out.0",)) for i in (1, 2)),
    *(_Rule(kind="query_key", larger=f"attn{i}.to_q", smaller=(f"attn{i}.to_k",), axis=ROWS) for i in (1, 2)),
    _Rule(kind="group_norm", larger="norm", smaller=("proj_in",)),
    # The text encoders, under transformers' names.
    _Rule(kind="norm", larger="layer_norm1", smaller=tuple(f"self_attn.{part}_proj" for part in "qkv")),
    _Rule(kind="norm", larger="layer_norm2", smaller=("mlp.fc1",)),
    _Rule(kind="value", larger="self_attn.v_proj", smaller=("self_attn.out_proj",)),
    _Rule(kind="query_key", larger="self_attn.q_proj", smaller=("self_attn.k_proj",), axis=ROWS),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling:
    """These `channels` of a tensor along `axis` times `factor`."""

    axis: int
    channels: npt.NDArray[np.intp]
    factor: float


def outliers(
    shapes: Shapes, *, factor: float, share: float = 0.01, kinds: Sequence[str] = KINDS, seed: int = 0
) -> dict[str, list[Scaling]]:
    """Tensor → what to multiply it with, so that `share` of the channels of every place grows by `factor`.

    `shapes`: of one component in diffusers' or transformers' names. Each place has at least one such channel and draws
    its own from the seed and its name, so that equal components of two checkpoints stay equal. `ValueError`: an unknown
    kind, a share beyond 0 to 1, a factor that is not positive.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kinds {sorted(unknown)}; choose from {', '.join(KINDS)}")
    if not 0 < share <= 1 or factor <= 0:
        raise ValueError(f"share is {share} and factor is {factor}; give a share in (0, 1] and a positive factor")
    found: dict[str, list[Scaling]] = {}
    for name in sorted(shapes):
        for rule in _RULES:
            layer = name.removesuffix(".weight")
            if rule.kind not in kinds or layer == name or not re.search(rf"(^|\.){re.escape(rule.larger)}$", layer):
                continue
            prefix = layer.removesuffix(rule.larger)
            readers = [prefix + reader for reader in rule.smaller]
            if all(f"{reader}.weight" in shapes for reader in readers):
                width = shapes[name][0] // rule.share
                channels = _drawn(f"{seed} {rule.kind} {layer}", width, share)
                sides = [(layer, ROWS, factor), *((reader, rule.axis, 1 / factor) for reader in readers)]
                for at, axis, by in sides:
                    for tensor in (f"{at}.weight", *([f"{at}.bias"] if axis == ROWS else [])):
                        if tensor in shapes:
                            found.setdefault(tensor, []).append(Scaling(axis=axis, channels=channels, factor=by))
    return found


def scaled(values: npt.NDArray[np.floating], scalings: Sequence[Scaling]) -> npt.NDArray[np.float32]:
    """The tensor with these channels scaled, multiplied in float64 and rounded once, to float32."""
    product = values.astype(np.float64)
    for one in scalings:
        factors = np.ones(values.shape[one.axis])
        factors[one.channels] = one.factor
        product *= factors.reshape([-1 if axis == one.axis else 1 for axis in range(values.ndim)])
    return product.astype(np.float32)


def _drawn(name: str, width: int, share: float) -> npt.NDArray[np.intp]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.sort(rng.choice(width, max(1, round(share * width)), replace=False))
