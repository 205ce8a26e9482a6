"""The truth for pixels, in plain torch."""

import torch
from torch import Tensor


def read_pixels_ref(x: Tensor, padded: int) -> Tensor:
    """`x` (b, c, h, w) as (b, h, w, padded), in its own type: zeros behind its channels."""
    return torch.nn.functional.pad(x.permute(0, 2, 3, 1), (0, padded - x.shape[1]))
