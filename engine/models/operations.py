"""The operations that our networks need and torch has no single function for.

Each takes part in torch's override protocol (`__torch_function__`), so that the export sees the operation itself
instead of its parts: attention stays one ONNX node, and sizes are taken from tensors, never from Python numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Multi-head attention of `[batch, tokens, heads · head_dim]` tensors, scaled by 1/sqrt(head_dim).

    `key` and `value` may have another number of tokens than `query`. The result has the query's shape.
    """
    if has_torch_function((query, key, value)):
        result: Tensor = handle_torch_function(attention, (query, key, value), query, key, value, heads, causal=causal)
        return result
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def upsample_like(x: Tensor, like: Tensor) -> Tensor:
    """Nearest-neighbour resize of `x [batch, c, h, w]` to the height and width of `like`, whatever its channels."""
    if has_torch_function((x, like)):
        result: Tensor = handle_torch_function(upsample_like, (x, like), x, like)
        return result
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """Row `index[b]` of every `x[b]`: `[batch, tokens, width]` and `[batch]` → `[batch, width]`."""
    if has_torch_function((x, index)):
        result: Tensor = handle_torch_function(rows_at, (x, index), x, index)
        return result
    return x[torch.arange(x.shape[0], device=x.device), index]


def first_row(x: Tensor) -> Tensor:
    """The first of every `x[b]`: `[batch, tokens, width]` → `[batch, width]`."""
    if has_torch_function((x,)):
        result: Tensor = handle_torch_function(first_row, (x,), x)
        return result
    return x[:, 0]


def spread(row: Tensor, like: Tensor) -> Tensor:
    """The same row or rows `[width]`, `[tokens, width]` for every `like[b]` → `[batch, 1 or tokens, width]`."""
    if has_torch_function((row, like)):
        result: Tensor = handle_torch_function(spread, (row, like), row, like)
        return result
    rows = row if row.dim() == 2 else row[None]
    return rows[None].repeat(like.shape[0], 1, 1)


def in_rows(x: Tensor, rows: int) -> Tensor:
    """`[batch, rows · width]` → `[batch, rows, width]`."""
    if has_torch_function((x,)):
        result: Tensor = handle_torch_function(in_rows, (x,), x, rows)
        return result
    return x.view(x.shape[0], rows, -1)
