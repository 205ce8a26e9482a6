"""Triton: 8-bit activations by 4-bit weights, which become 8 bits in registers.

As in `weight_only` products are taken as `weight @ x^T`, so that weights are the operand that matrix instructions take
from registers; accumulators are (BLOCK_N, BLOCK_M).
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..activations import gelu
from ..linear.kernel import tile_of_program
from ..quantize.kernel import narrowed
from ..weight_only.kernel import finish

# The bits of 1.5 * 2^23 as a float: an integer of up to 22 bits that is added to them is added to the float.
MAGIC_BITS = tl.constexpr(0x4B400000)
MAGIC = tl.constexpr(12582912.0)


@triton.jit
def sixteenfold(nibbles):
    """Bytes with q + 8 in their high nibble and nothing in the low one → 16 q, int8."""
    return (nibbles ^ 0x80).to(tl.int8, bitcast=True)


@triton.jit
def group_sums(packed, low, high):
    """Sixteen times a group's sums of products, float32: weights (n, 32) by both halves (32, m) of an input.

    Sums of a group stay below 2^21; on top of MAGIC's bits they are floats without a conversion, of which GeForce cards
    do 16 in the time of 1024 products.
    """
    sums = tl.full((packed.shape[0], low.shape[1]), MAGIC_BITS, dtype=tl.int32)
    sums = tl.dot(sixteenfold(packed << 4), low, sums, out_dtype=tl.int32)
    sums = tl.dot(sixteenfold(packed & 0xF0), high, sums, out_dtype=tl.int32)
    return sums.to(tl.float32, bitcast=True) - MAGIC


@triton.jit(do_not_specialize=["M"])
def linear_w4a8_kernel(
    x, x_scale, weight, weight_scale, bias, residual, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """One tile of `x (M, K) @ weight (N, K)^T`; see `linear_w4a8`."""
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    half = tl.arange(0, 32)[None, :]
    # Rows and columns beyond the end read the first one again and are never stored: no mask on the operands.
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[:, None] * K + half
    channels = tl.where(in_columns, columns, 0).to(tl.int64)
    w_tile = weight + channels[:, None] * (K // 2) + half
    scales = weight_scale + channels * (K // 64)
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for _ in range(0, K, 64):
        packed = tl.load(w_tile)
        # Loaded as it lies and transposed here: loaded transposed, Triton unpacks int8 to single bytes for mma.sync.
        low = tl.trans(tl.load(x_tile))
        high = tl.trans(tl.load(x_tile + 32))
        total += group_sums(packed, low, high) * tl.load(scales).to(tl.float32)[:, None]
        x_tile += 64
        w_tile += 32
        scales += 1
    total *= 0.0625 * tl.load(x_scale + rows, mask=in_rows, other=0.0)[None, :]
    finish(total, bias, None, residual, out, rows, columns, in_rows, in_columns, rows, N)


@triton.jit(do_not_specialize=["M"])
def geglu_linear_w4a8_kernel(
    x, x_scale, weight, weight_scale, bias, inverse, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """One tile of `value * gelu(gate)`, where `weight` (2N, K) holds the value rows, then the gate rows.

    With `inverse` times that of each column, in 8 bits.
    """
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    half = tl.arange(0, 32)[None, :]
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[:, None] * K + half
    channels = tl.where(in_columns, columns, 0).to(tl.int64)
    w_tile = weight + channels[:, None] * (K // 2) + half
    g_tile = w_tile + N.to(tl.int64) * (K // 2)
    scales = weight_scale + channels * (K // 64)
    gate_scales = scales + N.to(tl.int64) * (K // 64)
    value = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    gate = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for _ in range(0, K, 64):
        low = tl.trans(tl.load(x_tile))
        high = tl.trans(tl.load(x_tile + 32))
        value += group_sums(tl.load(w_tile), low, high) * tl.load(scales).to(tl.float32)[:, None]
        gate += group_sums(tl.load(g_tile), low, high) * tl.load(gate_scales).to(tl.float32)[:, None]
        x_tile += 64
        w_tile += 32
        g_tile += 32
        scales += 1
        gate_scales += 1
    scale = 0.0625 * tl.load(x_scale + rows, mask=in_rows, other=0.0)[None, :]
    value *= scale
    gate *= scale
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[:, None]
        gate += tl.load(bias + N + columns, mask=in_columns, other=0.0).to(tl.float32)[:, None]
    gated = value * gelu(gate)
    places = rows.to(tl.int64)[None, :] * N + columns[:, None]
    if inverse is None:
        gated = gated.to(out.dtype.element_ty)
    else:
        gated = narrowed(gated * tl.load(inverse + columns, mask=in_columns, other=0.0)[:, None], tl.int8)
    tl.store(out + places, gated, mask=in_columns[:, None] & in_rows[None, :])
