"""What both tests of attention start from."""

from collections.abc import Callable

import torch
from torch import Tensor

from pocketxl.kernels.attention.reference import attention_ref, join_heads, split_heads
from pocketxl.kernels.configs import table

from ...fixtures.kernels import DEVICE


def operands(batch: int, m: int, n: int, heads: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Normal queries, keys and values, float16."""
    random = torch.Generator().manual_seed(seed)
    tokens = {"q": m, "k": n, "v": n}
    return {
        name: torch.randn(batch, count, heads * 64, generator=random).half().to(DEVICE)
        for name, count in tokens.items()
    }


def slices(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers as columns of one tensor, as one linear for all three writes them."""
    return dict(zip(given, torch.cat(list(given.values()), -1).chunk(3, -1), strict=True))


def _sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    """torch's own attention in the operands' precision."""
    query, key, value = (split_heads(x, heads) for x in (q, k, v))
    return join_heads(torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal))


# Both take the operands by name, from a dictionary.
sdpa: Callable[..., Tensor] = _sdpa
truth_of: Callable[..., Tensor] = attention_ref


def configurations(op: str) -> list[dict[str, int]]:
    """Every tile of an op's table once."""
    found = {(row.config["BLOCK_M"], row.config["BLOCK_N"]): dict(row.config) for row in table(op)}
    return [found[tile] for tile in sorted(found)]
