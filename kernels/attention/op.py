"""Attention as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..errors import require
from ..execute import architecture_of, dtype_name, execute, runs_kernels
from ..quantize.reference import narrowed_ref
from .plan import HEAD_DIM, plan_attention, plan_attention_int8, plan_self_attention
from .reference import dequantized, join_heads, split_heads
from .rows import rows_in_place


@torch.library.triton_op("pocketxl::attention", mutates_args={})
def attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False, inverse: Tensor | None = None
) -> Tensor:
    """`softmax(q k^T / 8) v` for each head of 64 channels: self-attention, and cross-attention on 77·n keys.

    Scores, softmax and sums are float32; the shares that weigh the values are rounded to the dtype of `v`, as in
    FlashAttention; the result is rounded once.

    `q`: (B, M, heads * 64), float16 or bfloat16. May be a slice of columns of a wider contiguous tensor, such as
    `qkv[..., :C]` of one linear for all three, where rows begin at multiples of 32 bytes and the slice at a multiple
    of 16; anything else is copied. `k`: (B, N, heads * 64), the same. `v`: (B, N, heads * 64), the same. `heads`:
    number of heads. `causal`: query i sees keys 0 to i only, as in the text encoders; M = N. `inverse`: (C,),
    float32: what each channel of the result is multiplied with before it is rounded to int8, ties to even, at most 127;
    None: it is not.

    Returns (B, M, heads * 64), contiguous. A NaN in a query gives NaN in its row of that head; one in a key or value
    gives NaN in all rows of that head; in int8 no NaN is seen. A picture's result does not depend on the others of the
    batch.

    Raises `UnsupportedShapeError`: other head dimensions, other dtypes, shapes that do not fit together.
    """
    _check("attention", q, k, v, heads)
    if not runs_kernels(q):
        return _narrow(_plain(q, k, v, heads, causal), inverse)
    (q, q_stride), (k, k_stride), (v, v_stride) = map(rows_in_place, (q, k, v))
    plan = plan_attention(
        batch=q.shape[0],
        m=q.shape[1],
        n=k.shape[1],
        heads=heads,
        arch=architecture_of(q),
        dtype=dtype_name(q.dtype),
        causal=causal,
        q_stride=q_stride,
        k_stride=k_stride,
        v_stride=v_stride,
        quantized=inverse is not None,
    )
    return execute(plan, {"q": q, "k": k, "v": v, **_given(inverse)})["out"]


@attention.register_fake  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False, inverse: Tensor | None = None) -> Tensor:
    return q.new_empty(q.shape, dtype=q.dtype if inverse is None else torch.int8)


@torch.library.triton_op("pocketxl::attention_int8", mutates_args={})
def attention_int8(
    q: Tensor, k: Tensor, v: Tensor, heads: int, accumulate_half: bool = False, inverse: Tensor | None = None
) -> Tensor:
    """`attention` with scores of int8 queries and keys, for self-attention of many tokens.

    The mean of all keys is subtracted first, which softmax does not see (SageAttention, arXiv 2410.02367). Queries have
    one scale for each token and head, keys one for each 64 tokens and head: a scale per query costs nothing where
    scores are scaled anyway, one per key would cost a multiplication for every score. Shares and values are 16 bit
    and of the dtype of `v`: bfloat16 values are not converted and keep their range.

    `q`: (B, M, heads * 64), float16 or bfloat16; contiguous or a slice of columns, as for `attention`. `k`: (B, N,
    heads * 64), the same. `v`: (B, N, heads * 64), the same. `heads`: number of heads. `accumulate_half`: sum shares
    times values in float16 within a block of keys, in float32 beyond; for GeForce cards, whose matrix instructions sum
    float16 at twice the rate. float16 only. Sums that pass 65504, possible once a value passes 16376, come out infinite
    or NaN. `inverse`: as for `attention`.

    Returns (B, M, heads * 64), contiguous. NaN or infinity in a query gives NaN in its row of that head; in a key, NaN
    in all rows of that head; in a value, NaN or infinity in all rows of that head.

    Raises `UnsupportedShapeError`: other head dimensions, other dtypes, shapes that do not fit together.
    """
    _check("attention_int8", q, k, v, heads)
    if not runs_kernels(q):
        query, key = dequantized(q, k, heads)
        return _narrow(_plain(query, key, v.float(), heads).to(q.dtype), inverse)
    (q, q_stride), (k, k_stride), (v, v_stride) = map(rows_in_place, (q, k, v))
    plan = plan_attention_int8(
        batch=q.shape[0],
        m=q.shape[1],
        n=k.shape[1],
        heads=heads,
        arch=architecture_of(q),
        dtype=dtype_name(q.dtype),
        accumulate_half=accumulate_half,
        q_stride=q_stride,
        k_stride=k_stride,
        v_stride=v_stride,
        quantized=inverse is not None,
    )
    return execute(plan, {"q": q, "k": k, "v": v, **_given(inverse)})["out"]


@attention_int8.register_fake  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, heads: int, accumulate_half: bool = False, inverse: Tensor | None = None
) -> Tensor:
    return q.new_empty(q.shape, dtype=q.dtype if inverse is None else torch.int8)


@torch.library.triton_op("pocketxl::self_attention", mutates_args={})
def self_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, inverse: Tensor | None = None) -> Tensor:
    """`attention`, or `attention_int8` with `accumulate_half`: whichever the GPU computes faster.

    An RTX 30, 40 or 50 has 8-bit scores, an A100 or H100 16-bit ones. Of many tokens among themselves; for a prompt's
    few keys use `attention`.

    `q`: (B, M, heads * 64), float16 or bfloat16; contiguous or a slice of columns, as for `attention`. `k`: (B, N,
    heads * 64), the same. `v`: (B, N, heads * 64), the same. `heads`: number of heads. `inverse`: as for
    `attention`.

    Returns (B, M, heads * 64), contiguous. NaN and infinities are as in the op that computes it.

    Raises `UnsupportedShapeError`: other head dimensions, other dtypes, shapes that do not fit together.
    """
    _check("self_attention", q, k, v, heads)
    if not runs_kernels(q):
        return _narrow(_plain(q, k, v, heads), inverse)
    (q, q_stride), (k, k_stride), (v, v_stride) = map(rows_in_place, (q, k, v))
    plan = plan_self_attention(
        batch=q.shape[0],
        m=q.shape[1],
        n=k.shape[1],
        heads=heads,
        arch=architecture_of(q),
        dtype=dtype_name(q.dtype),
        q_stride=q_stride,
        k_stride=k_stride,
        v_stride=v_stride,
        quantized=inverse is not None,
    )
    return execute(plan, {"q": q, "k": k, "v": v, **_given(inverse)})["out"]


@self_attention.register_fake  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, heads: int, inverse: Tensor | None = None) -> Tensor:
    return q.new_empty(q.shape, dtype=q.dtype if inverse is None else torch.int8)


def _plain(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    query, key, value = (split_heads(x, heads) for x in (q, k, v))
    return join_heads(scaled_dot_product_attention(query, key, value, is_causal=causal))


def _narrow(out: Tensor, inverse: Tensor | None) -> Tensor:
    return out if inverse is None else narrowed_ref(out.double(), inverse).to(torch.int8)


def _given(inverse: Tensor | None) -> dict[str, Tensor]:
    return {} if inverse is None else {"inverse": inverse.contiguous()}


def _check(op: str, q: Tensor, k: Tensor, v: Tensor, heads: int) -> None:
    shape = {"q": tuple(q.shape), "k": tuple(k.shape), "v": tuple(v.shape), "heads": heads}
    require(q.ndim == 3 and k.ndim == 3 and v.ndim == 3, op, shape, "q, k and v are (B, tokens, channels)")
    require(
        q.shape[-1] == heads * HEAD_DIM,
        op,
        shape,
        f"q has {HEAD_DIM} channels a head; use torch for others",
    )
    require(k.shape == v.shape, op, shape, "each key has one value")
    require(k.shape[0] == q.shape[0] and k.shape[-1] == q.shape[-1], op, shape, "B and channels are the same for all")
    dtypes = {"q": q.dtype, "k": k.dtype, "v": v.dtype}
    require(q.dtype == k.dtype == v.dtype, op, dtypes, "all three have one dtype")
