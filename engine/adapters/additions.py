"""Low-rank pairs of some LoRAs → the inputs of an open graph that add them all.

Several LoRAs add up: `scale_a · up_a · down_a + scale_b · up_b · down_b` is one pair whose rank is the sum of theirs.
Scales and weights go into `up`, and into both what makes them fit an engine's smoothed layers (`factors.py`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..errors import IncompatibleError
from ..folder.openings import Openings, Shape, pair_inputs
from .factors import Factors
from .pairs import Floats, Lora, Pair

NONE = Factors()


def additions(
    loras: Sequence[tuple[Lora, float]], component: str, openings: Openings, factors: Mapping[str, Factors]
) -> dict[str, dict[str, Floats]]:
    """Layer (by parts, where the engine has it in parts) → its two inputs, for layers that a LoRA changes.

    `loras`: each with its weight. Raises `IncompatibleError` for a pair of a layer that the component does not have, or
    of another shape.
    """
    shapes = openings.shapes(tuple(openings.layers))
    found: dict[str, list[tuple[Pair, float]]] = {}
    for lora, weight in loras:
        for layer, pair in lora.pairs.get(component, {}).items():
            if _behind_all(layer, shapes):
                continue
            for name, part in _parts(lora.name, component, layer, pair, shapes):
                if part.rank:
                    found.setdefault(name, []).append((part, weight))
    return {name: _inputs(name, shapes[name], pairs, factors.get(name, NONE)) for name, pairs in found.items()}


def _behind_all(layer: str, shapes: Mapping[str, Shape]) -> bool:
    """Whether it is of a text encoder's last layer and the engine ends before that: what reads it is not there."""
    found = re.fullmatch(r"(.*\.layers\.)(\d+)\..*", layer)
    if found is None:
        return False
    prefix, index = found[1], int(found[2])
    there = {int(name[len(prefix) :].partition(".")[0]) for name in shapes if name.startswith(prefix)}
    return bool(there) and index == max(there) + 1


def _parts(
    lora: str, component: str, layer: str, pair: Pair, shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, Pair]]:
    """The pair by the layers that the engine made of its layer."""
    names = [layer] if layer in shapes else []
    while not names or names[0] != layer:
        if (part := f"{layer}.{len(names)}") not in shapes:
            break
        names.append(part)
    if not names:
        raise IncompatibleError(
            f"LoRA {lora} changes {layer} of {component}, which this engine has no such layer for; give one that was "
            "made for its model"
        )
    out, taken, *kernel = shapes[names[0]]
    wanted = ((pair.rank, taken, *kernel), (out * len(names), pair.rank))
    if (pair.down.shape, pair.up.shape) != wanted:
        raise IncompatibleError(
            f"LoRA {lora} has matrices of {pair.down.shape} and {pair.up.shape} for {layer} of {component}, where this "
            f"engine needs {wanted[0]} and {wanted[1]}; give one that was made for its model"
        )
    for index, name in enumerate(names):
        yield name, Pair(down=pair.down, up=pair.up[index * out : (index + 1) * out], scale=pair.scale)


def _inputs(layer: str, shape: Shape, pairs: Sequence[tuple[Pair, float]], factors: Factors) -> dict[str, Floats]:
    down = np.concatenate([pair.down for pair, _ in pairs])
    up = np.concatenate([pair.up * np.float32(pair.scale * weight) for pair, weight in pairs], axis=1)
    if factors.inputs is not None:
        down = down * factors.inputs.reshape(1, -1, *[1] * (len(shape) - 2))
    if factors.outputs is not None:
        up = up * factors.outputs[:, None]
    if len(shape) == 2:
        down, up = down.T, up.T
    else:
        up = up.reshape(*up.shape, *[1] * (len(shape) - 2))
    names = [tensor.name for tensor in pair_inputs(layer, shape)]
    return dict(zip(names, (np.ascontiguousarray(down, np.float32), np.ascontiguousarray(up, np.float32)), strict=True))
