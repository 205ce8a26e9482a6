"""The truth for attention, in float64 and plain torch; and what 8-bit scores start from."""

import torch
from torch import Tensor

from ..quantize.reference import narrowed_ref
from .plan import HEAD_DIM, KEY_BLOCK


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, tokens, heads * 64) as (B, heads, tokens, 64); a view."""
    batch, tokens, _ = x.shape
    return x.view(batch, tokens, heads, HEAD_DIM).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, tokens, 64) as (B, tokens, heads * 64), contiguous."""
    return x.transpose(1, 2).flatten(-2)


def attention_ref(
    q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False, inverse: Tensor | None = None
) -> Tensor:
    """What `attention` and `attention_int8` approximate: `softmax(q k^T / 8) v` of each head, float64.

    With `inverse` (C,) times that of each channel in whole steps of int8.
    """
    query, key, value = (split_heads(x.double(), heads) for x in (q, k, v))
    scores = query @ key.mT / HEAD_DIM**0.5
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return narrowed_ref(join_heads(torch.softmax(scores, -1) @ value), inverse)


def self_attention_ref(q: Tensor, k: Tensor, v: Tensor, heads: int, inverse: Tensor | None = None) -> Tensor:
    """What `self_attention` approximates, float64."""
    return attention_ref(q, k, v, heads, inverse=inverse)


def quantize(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """int8 and a scale over `dims`: the largest magnitude becomes 127; half to even; NaN where something is not finite.

    Float32, operation by operation as in the kernels, so that the integers are theirs.
    """
    largest = x.abs().nan_to_num(0).amax(dims, keepdim=True).clamp(min=1e-15)
    whole = (x * (127.0 / largest)).clamp(-127, 127).round()
    return whole.nan_to_num(0).to(torch.int8), largest / 127.0 + (x * 0.0).sum(dims, keepdim=True)


def quantized_queries(q: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """int8 (B, heads, M, 64) and its scales (B, heads, M, 1), float32: one for each token and head."""
    return quantize(split_heads(q.float(), heads), (-1,))


def quantized_keys(k: Tensor, heads: int, *, smooth: bool = True) -> tuple[Tensor, Tensor]:
    """int8 (B, heads, blocks, 64, 64) and its scales (B, heads, blocks, 1, 1): one for each block of 64 keys of a head.

    `smooth` subtracts the mean of all keys before: it adds the same to all scores of a query, which softmax does not
    see, and takes the channels' offsets out of what 8 bits must hold (SageAttention). Behind the last key are zeros.
    """
    x = split_heads(k.float(), heads)
    if smooth:
        x = x - x.mean(2, keepdim=True)
    missing = -x.shape[2] % KEY_BLOCK
    x = torch.nn.functional.pad(x, (0, 0, 0, missing))
    return quantize(x.reshape(*x.shape[:2], -1, KEY_BLOCK, HEAD_DIM), (-2, -1))


def dequantized(q: Tensor, k: Tensor, heads: int, *, smooth: bool = True) -> tuple[Tensor, Tensor]:
    """The queries and keys that 8 bits leave, in the layout of `q` and `k`, float32."""
    query, query_scale = quantized_queries(q, heads)
    key, key_scale = quantized_keys(k, heads, smooth=smooth)
    blocks = (key * key_scale).flatten(2, 3)[:, :, : k.shape[1]]
    return join_heads(query * query_scale), join_heads(blocks)


def attention_int8_ref(q: Tensor, k: Tensor, v: Tensor, heads: int, *, smooth: bool = True) -> Tensor:
    """What `attention_int8` computes, with everything after the quantization in float64."""
    return attention_ref(*dequantized(q, k, heads, smooth=smooth), v, heads)
