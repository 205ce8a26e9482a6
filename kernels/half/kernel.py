"""Triton: matrix products and convolutions on float16 operands, summed in float32."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..activations import gelu, sigmoid
from ..conv.kernel import multiply_taps, store_sums
from ..linear.kernel import tile_of_program

GELU = tl.constexpr(1)
QUICK_GELU = tl.constexpr(2)
SILU = tl.constexpr(3)


@triton.jit
def activated(value, ACTIVATION: tl.constexpr):
    """What stands behind a linear, float32; 0: nothing."""
    if ACTIVATION == GELU:
        return gelu(value)
    elif ACTIVATION == QUICK_GELU:
        return value * sigmoid(1.702 * value)
    elif ACTIVATION == SILU:
        return value * sigmoid(value)
    else:
        return value


@triton.jit
def store_activated(value, tile_m, first, bias, residual, out, M, N, BLOCK_M: tl.constexpr, ACTIVATION: tl.constexpr):
    """Columns from `first` on: add the bias, activate, add the residual, round once, store."""
    columns = first + tl.arange(0, value.shape[1])
    in_columns = columns < N
    inside = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M) < M)[:, None] & in_columns[None, :]
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    value = activated(value, ACTIVATION)
    # The tile's corner takes 64 bits, places in it 32: half the registers of 64 bits everywhere.
    corner = tile_m.to(tl.int64) * BLOCK_M * N + first
    places = tl.arange(0, BLOCK_M)[:, None] * N + tl.arange(0, value.shape[1])[None, :]
    if residual is not None:
        value += tl.load(residual + corner + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + corner + places, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def linear_f16_kernel(
    x, weight, bias, residual, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HALVES: tl.constexpr, EVEN_K: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """One tile of `x (M, K) @ weight (N, K)^T`; see `linear_f16`."""
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)[None, :]
    # Rows beyond the end read the first row again and are never stored: no mask on the operands' rows.
    x_tile = x + tl.where(rows < M, rows, 0).to(tl.int64)[:, None] * K + depth
    w_tile = weight + tl.where(columns < N, columns, 0).to(tl.int64)[:, None] * K + depth
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        if EVEN_K:
            a = tl.load(x_tile)
            b = tl.load(w_tile)
        else:
            a = tl.load(x_tile, mask=depth < K - k, other=0.0)
            b = tl.load(w_tile, mask=depth < K - k, other=0.0)
        total = tl.dot(a, tl.trans(b), total)
        x_tile += BLOCK_K
        w_tile += BLOCK_K
    first = tile_n * BLOCK_N
    if HALVES:
        # Half a tile after the other: what is added to a big tile would not fit the registers at once.
        low, high = tl.split(tl.permute(tl.reshape(total, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        store_activated(low, tile_m, first, bias, residual, out, M, N, BLOCK_M, ACTIVATION)
        store_activated(high, tile_m, first + BLOCK_N // 2, bias, residual, out, M, N, BLOCK_M, ACTIVATION)
    else:
        store_activated(total, tile_m, first, bias, residual, out, M, N, BLOCK_M, ACTIVATION)


@triton.jit(do_not_specialize=["B", "H", "W", "SEEN_H", "SEEN_W"])
def conv_f16_kernel(
    x, x2, weight, bias, time, residual, out, B, H, W, SEEN_H, SEEN_W, C, C2, N,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, UPSAMPLE: tl.constexpr, SHARED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HALVES: tl.constexpr,
):  # fmt: skip
    """One tile of rows (B*Ho*Wo) by output channels; see `conv_f16`, and `conv_w8a8_kernel` for sizes and SHARED.

    BLOCK_K divides C and C2. Both pictures go into one sum, which is not SHARED where there are two.
    """
    PAD: tl.constexpr = KERNEL // 2
    height = (SEEN_H + 2 * PAD - KERNEL) // STRIDE + 1
    width = (SEEN_W + 2 * PAD - KERNEL) // STRIDE + 1
    M = B * height * width
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    at = tl.where(in_rows, rows, 0)
    picture = at // (height * width)
    top = at // width % height * STRIDE - PAD
    left = at % width * STRIDE - PAD
    # Columns beyond the end read the first filter again and are never stored.
    filters = tl.where(columns < N, columns, 0)
    taps = KERNEL * KERNEL
    steps = taps * tl.cdiv(C, BLOCK_K)
    channels = C + C2
    first, last = 0, steps
    if SHARED:
        first = tl.program_id(1) * steps // tl.num_programs(1)
        last = (tl.program_id(1) + 1) * steps // tl.num_programs(1)
    value = multiply_taps(
        tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32), x, weight, picture, top, left, in_rows, filters,
        first, last, H, W, C, SEEN_H, SEEN_W, channels, taps * channels,
        KERNEL, UPSAMPLE, BLOCK_M, BLOCK_N, BLOCK_K, True,
    )  # fmt: skip
    if SHARED:
        places = (tl.program_id(1).to(tl.int64) * M + rows)[:, None] * N + columns[None, :]
        tl.store(out + places, value, mask=in_rows[:, None] & (columns < N)[None, :])
    else:
        if x2 is not None:
            value = multiply_taps(
                value, x2, weight + C, picture, top, left, in_rows, filters,
                0, taps * tl.cdiv(C2, BLOCK_K), H, W, C2, SEEN_H, SEEN_W, channels, taps * channels,
                KERNEL, UPSAMPLE, BLOCK_M, BLOCK_N, BLOCK_K, True,
            )  # fmt: skip
        if HALVES:
            # Half a tile after the other: what is added to a big tile would not fit the registers at once.
            low, high = tl.split(tl.permute(tl.reshape(value, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
            columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N // 2)
            store_sums(low, rows, columns, picture, None, bias, time, residual, out, M, N)
            columns += BLOCK_N // 2
            store_sums(high, rows, columns, picture, None, bias, time, residual, out, M, N)
        else:
            store_sums(value, rows, columns, picture, None, bias, time, residual, out, M, N)
