"""Every tensor that crosses a component's edge, declared once.

ONNX names, dynamic axes, TensorRT profiles, runner checks and parity checks all derive from these. A dimension is a
number or a symbol; the same symbol means the same length throughout one component:

`batch` rows of one call · `tokens` prompt tokens (77·n) · `steps` sampler evaluations ·
`height`, `width` latent size (1/8 of the picture) · `height/2`, … the same halved, rounded up ·
`image_height`, `image_width` picture size in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

Dim = int | str
Arrays = Mapping[str, np.ndarray]
"""By tensor name."""
FLOAT = "float32"
SPARSE: Mapping[str, bool] = {"sparse": True}
"""A dataclass field's metadata: left out of `engine.json` while it is empty. For what few descriptions have."""
INT = "int64"


class Role(StrEnum):
    """What a component does for a picture: recipes, the memory plan and runners decide by it, never by names."""

    TEXT_ENCODER = "text_encoder"
    CONDITIONER = "conditioner"
    UNET = "unet"
    VAE_DECODER = "vae_decoder"
    VAE_ENCODER = "vae_encoder"
    HINT_ENCODER = "hint_encoder"
    IMAGE_ENCODER = "image_encoder"
    IMAGE_PROJECTION = "image_projection"
    TINY_DECODER = "tiny_decoder"
    UPSCALER = "upscaler"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: its name, its shape in numbers and symbols, and its numpy dtype name."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str = FLOAT


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """What a component is for, what it takes and what it gives."""

    role: Role
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions, in order of first appearance."""
        dims = (d for t in (*self.inputs, *self.outputs) for d in t.shape if isinstance(d, str))
        return tuple(dict.fromkeys(dims))
