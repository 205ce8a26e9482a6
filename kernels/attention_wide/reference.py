"""The truth for attention with one wide head: torch's, in float64."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention_wide_ref(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What `attention_wide` approximates: `softmax(q k^T / sqrt(channels)) v`, float64; (B, tokens, channels)."""
    return scaled_dot_product_attention(q.double(), k.double(), v.double())
