"""The reference as a smoothed network would have run it: keys and values carry the factors of their layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...engine.folder.samples import Sample
from ...engine.specs import Arrays

if TYPE_CHECKING:
    from ...engine.architecture import UNetArchitecture
    from ..quantize.smoothing import Smoothing


def key_value_factors(architecture: "UNetArchitecture", smoothing: "Smoothing") -> dict[str, np.ndarray]:
    """Tensor at the conditioner's edge (`key_values.0.value`) → what its channels are multiplied by."""
    from ...engine.architecture import block_names

    factors = {}
    names = zip(block_names(architecture), architecture.attention_widths(), strict=True)
    for index, (block, width) in enumerate(names):
        for part, layer in (("key", "to_k"), ("value", "to_v")):
            found = smoothing.outputs(f"{block}.attn2.{layer}", width)
            if found is not None:
                factors[f"key_values.{index}.{part}"] = found
    return factors


def rescaled(samples: Sequence[Sample], factors: Mapping[str, np.ndarray]) -> list[Sample]:
    """Samples whose tensors of these names are multiplied by the factors of their last dimension."""

    def scaled(arrays: Arrays) -> dict[str, np.ndarray]:
        return {name: array * factors[name] if name in factors else array for name, array in arrays.items()}

    return [(scaled(inputs), scaled(outputs)) for inputs, outputs in samples]
