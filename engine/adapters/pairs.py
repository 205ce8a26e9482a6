"""What a LoRA is once its file is read: a low-rank pair for each layer that it changes.

A layer's output gets `scale * up @ (down @ x)` added to it (Hu et al., 2021, https://arxiv.org/abs/2106.09685). A
convolution's `down` has its kernel, stride and padding; its `up` is 1 x 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pair:
    """The pair of one layer, as plain float32 numbers that are finite."""

    down: Floats
    """`[rank, in]`, of a convolution `[rank, in, kernel height, kernel width]`."""
    up: Floats
    """`[out, rank]`, of a convolution too."""
    scale: float = 1.0
    """alpha / rank; 1 where the file has no alpha."""

    @property
    def rank(self) -> int:
        """How many directions it adds."""
        return int(self.down.shape[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Lora:
    """All pairs of one file."""

    name: str
    """What pictures and messages call it: the file's name without its ending."""
    pairs: Mapping[str, Mapping[str, Pair]]
    """Component (`base/unet`, `base/conditioner`, `text_encoder`, …) → layer, as the engine's weights name it without
    `.weight` (`down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q`) → its pair."""
    digest: str = ""
    """sha256 of the file's bytes in hex: two of the same name are not the same LoRA."""
    short_hash: str = ""
    """AUTOMATIC1111's, of the tensors alone, in 12 hexadecimal digits: what pictures name it by."""
    unmatched: tuple[str, ...] = field(default=())
    """Keys of the file that no layer of the engine answers to."""
    error: float = 0.0
    """What of the file's changes is left out, relative to them: 0 for a LoRA, and for others that are exactly pairs."""
