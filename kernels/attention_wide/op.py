"""Attention with one wide head as a torch op: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..attention.rows import rows_in_place
from ..errors import require
from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import plan_attention_wide


@torch.library.triton_op("pocketxl::attention_wide", mutates_args={})
def attention_wide(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(C)) v` with one head of all C channels: the attention in the middle of SDXL's VAE.

    Products, softmax and sums are float32. A key's share is rounded to float16 relative to the best of its block of
    keys, and again relative to the best of all where that is another's; the result is rounded once.

    `q`: (B, M, C), float16, C a multiple of 16. May be a slice of columns of a wider contiguous tensor, such as
    `qkv[..., :C]` of one linear for all three, where rows begin at multiples of 32 bytes and the slice at a multiple
    of 16; anything else is copied. `k`: (B, N, C), the same. `v`: (B, N, C), the same.

    Returns (B, M, C), contiguous. A NaN in a query gives NaN in its row, one in a key in all rows, one in a value in
    its channel of all rows. On a GPU up to 256 MiB hold shares between the kernels (more only where 128 queries of
    every picture need more).

    Raises `UnsupportedShapeError`: other dtypes or channels, shapes that do not fit together.
    """
    _check(q, k, v)
    if not runs_kernels(q):
        return scaled_dot_product_attention(q, k, v)
    (q, q_stride), (k, k_stride), (v, v_stride) = map(rows_in_place, (q, k, v))
    plan = plan_attention_wide(
        batch=q.shape[0],
        m=q.shape[1],
        n=k.shape[1],
        channels=q.shape[2],
        arch=architecture_of(q),
        dtype=dtype_name(q.dtype),
        q_stride=q_stride,
        k_stride=k_stride,
        v_stride=v_stride,
    )
    return execute(plan, {"q": q, "k": k, "v": v})["out"]


@attention_wide.register_fake  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    op = "attention_wide"
    shape = {"q": tuple(q.shape), "k": tuple(k.shape), "v": tuple(v.shape)}
    require(q.ndim == 3 and k.ndim == 3 and v.ndim == 3, op, shape, "q, k and v are (B, tokens, channels)")
    require(k.shape == v.shape, op, shape, "each key has one value")
    require(k.shape[0] == q.shape[0] and k.shape[-1] == q.shape[-1], op, shape, "B and channels are the same for all")
    dtypes = {"q": q.dtype, "k": k.dtype, "v": v.dtype}
    require(q.dtype == k.dtype == v.dtype == torch.float16, op, dtypes, "all three are float16")
