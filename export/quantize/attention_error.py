"""Self-attention whose queries, keys, values and shares are e4m3: its steps, and how far it is off."""

import math

import torch
from torch import Tensor

from .attention_places import PROJECTIONS, SHARE_STEP, Steps
from .calibration import Calibration
from .grid import E4M3, LARGEST_E4M3
from .rounded import Floats
from .signed_ranges import float8_step


def attention_steps(name: str, seen: Calibration) -> Steps | None:
    """Those of queries, keys and values of the attention of that name; None if it was not watched."""
    found = [seen.layers.get(f"{name}.{part}") for part in PROJECTIONS]
    steps = [float8_step(float(layer.output_size.max(initial=0))) for layer in found if layer is not None]
    return (steps[0], steps[1], steps[2]) if len(steps) == len(PROJECTIONS) else None


def attention_error(weights: list[Floats], inputs: Floats, heads: int, steps: Steps) -> float:
    """Relative squared error of attention among tokens `[rows, in]`, with weights `[out, in]` of q, k and v.

    The tokens are those that were sampled, of several pictures: fewer than there are in one, and as different.
    """
    x = torch.from_numpy(inputs)
    parts = [x @ torch.from_numpy(weight).T for weight in weights]
    exact = _attention(*(_heads(part, heads) for part in parts), rounding=False)
    query, key, value = (_heads(_e4m3(part, step), heads) for part, step in zip(parts, steps, strict=True))
    reference = float(exact.square().sum(dtype=torch.float64))
    off = _attention(query, key, value, rounding=True).sub_(exact)
    return float(off.square().sum(dtype=torch.float64)) / reference if reference else 0.0


def _attention(query: Tensor, key: Tensor, value: Tensor, *, rounding: bool) -> Tensor:
    shares = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1)
    return (_e4m3(shares, SHARE_STEP) if rounding else shares) @ value


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, -1).transpose(0, 1)


def _e4m3(x: Tensor, step: float) -> Tensor:
    return (x / step).clamp(-LARGEST_E4M3, LARGEST_E4M3).to(E4M3).float() * step
