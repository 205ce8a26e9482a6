"""Triton: 16-bit activations by 4- or 8-bit weights, which become 16-bit floats in registers.

Products are taken as `weight @ x^T`: the weights are then the operand that matrix instructions take from registers on
every architecture (`wgmma` takes its second operand from shared memory only), and x goes from shared memory as it is.
Accumulators are thus (BLOCK_N, BLOCK_M).

Scales of 4-bit groups are applied to the weights, see `plan.py` for why; those of 8-bit channels to the sums.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..linear.kernel import tile_of_program

PIXELS = ["M", "H", "W", "OH", "OW"]


@triton.jit
def signed_nibbles(nibble, dtype: tl.constexpr):
    """0…15 → -8…7, exactly, without an integer conversion: the bits of 1024 + q (float16) or 128 + q (bfloat16)."""
    if dtype == tl.float16:
        return (nibble.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - 1032.0
    else:
        return (nibble.to(tl.uint16) | 0x4300).to(tl.bfloat16, bitcast=True) - 136.0


@triton.jit
def scaled(quantized, scale, dtype: tl.constexpr):
    """Weights in `dtype`, rounded once."""
    if dtype == tl.float16:
        return quantized * scale
    else:
        return (quantized.to(tl.float32) * scale.to(tl.float32)).to(dtype)


@triton.jit
def group_scales(scales, k, GROUP: tl.constexpr):
    """Scales of k…k+31 and of k+32…k+63: of one group, or of two groups of 32."""
    low = tl.load(scales + k // GROUP)
    if GROUP == 32:
        return low, tl.load(scales + k // GROUP + 1)
    else:
        return low, low


@triton.jit
def from_bytes(quantized, dtype: tl.constexpr):
    """int8 → `dtype`, exactly: the bits of 1024 + 128 + q (float16) or 2^23 + 128 + q (float32)."""
    unsigned = quantized.to(tl.uint8, bitcast=True)
    if dtype == tl.float16:
        return (unsigned.to(tl.uint16) ^ 0x6480).to(tl.float16, bitcast=True) - 1152.0
    else:
        return ((unsigned.to(tl.uint32) ^ 0x4B000080).to(tl.float32, bitcast=True) - 8388736.0).to(dtype)


@triton.jit
def finish(
    total, bias, time, residual, out, rows, columns, in_rows, in_columns, images, N,
):  # fmt: skip
    """The epilogue in float32: bias (N,), time (images, N) and residual (M, N) added, rounded once, stored."""
    value = total
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[:, None]
    inside = in_columns[:, None] & in_rows[None, :]
    if time is not None:
        value += tl.load(time + images[None, :] * N + columns[:, None], mask=inside, other=0.0).to(tl.float32)
    places = rows.to(tl.int64)[None, :] * N + columns[:, None]
    if residual is not None:
        value += tl.load(residual + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def linear_w4_kernel(
    x, weight, scale, bias, residual, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr, GROUP: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One tile of `x (M, K) @ weight (N, K)^T`; see `linear_w4`."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    half = tl.arange(0, 32)
    # Rows and columns beyond the end read the first one again and are never stored: no mask on the operands.
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[None, :] * K + half[:, None]
    channels = tl.where(in_columns, columns, 0).to(tl.int64)[:, None]
    w_tile = weight + channels * (K // 2) + half[None, :]
    scales = scale + tl.where(in_columns, columns, 0).to(tl.int64) * (K // GROUP)
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    # Two bytes a row are too few for the pipeline's asynchronous copies: scales are fetched one step ahead by hand.
    if AHEAD:
        next_low, next_high = group_scales(scales, 0, GROUP)
    for k in range(0, K, 64):
        packed = tl.load(w_tile)
        low = tl.load(x_tile)
        high = tl.load(x_tile + 32)
        if AHEAD:
            s_low, s_high = next_low, next_high
            next_low, next_high = group_scales(scales, tl.minimum(k + 64, K - 64), GROUP)
        else:
            s_low, s_high = group_scales(scales, k, GROUP)
        total = tl.dot(scaled(signed_nibbles(packed & 15, DTYPE), s_low[:, None], DTYPE), low, total)
        total = tl.dot(scaled(signed_nibbles(packed >> 4, DTYPE), s_high[:, None], DTYPE), high, total)
        x_tile += 64
        w_tile += 32
    finish(total, bias, None, residual, out, rows, columns, in_rows, in_columns, rows, N)


@triton.jit(do_not_specialize=["M"])
def linear_w8_kernel(
    x, weight, scale, bias, residual, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """One tile of `x (M, K) @ weight (N, K)^T * scale (N,)`; see `linear_w8`."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    depth = tl.arange(0, 64)
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[None, :] * K + depth[:, None]
    w_tile = weight + tl.where(in_columns, columns, 0).to(tl.int64)[:, None] * K + depth[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for _ in range(0, K, 64):
        total = tl.dot(from_bytes(tl.load(w_tile), DTYPE), tl.load(x_tile), total)
        x_tile += 64
        w_tile += 64
    total *= tl.load(scale + columns, mask=in_columns, other=0.0)[:, None]
    finish(total, bias, None, residual, out, rows, columns, in_rows, in_columns, rows, N)


@triton.jit
def pixels_of_rows(rows, OH, OW, STRIDE: tl.constexpr, TAPS: tl.constexpr):
    """Image of each output pixel, and the row and column that the first tap reads there (-1 in the padding)."""
    line = rows // OW
    image = line // OH
    PADDING: tl.constexpr = 1 if TAPS == 9 else 0
    return image, (line - image * OH) * STRIDE - PADDING, (rows - line * OW) * STRIDE - PADDING


@triton.jit
def pixels_of_tap(top, left, tap, H, W, OH, OW, UPSAMPLE: tl.constexpr, TAPS: tl.constexpr):
    """Place of a tap's pixel in its image, as a count of pixels, and whether it lies in the picture."""
    y = top + tap // 3
    x = left + tap % 3
    if UPSAMPLE:  # The filter sees a picture of OH x OW that is never written: nearest, twice the size.
        inside = (y >= 0) & (y < OH) & (x >= 0) & (x < OW)
        y = y >> 1
        x = x >> 1
    elif TAPS == 1:
        inside = y >= 0
    else:
        inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return tl.where(inside, y * W + x, 0), inside


@triton.jit(do_not_specialize=PIXELS)
def conv_w4_kernel(
    x, weight, scale, bias, time, residual, out, M, N, C, H, W, OH, OW,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr, GROUP: tl.constexpr, AHEAD: tl.constexpr,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, UPSAMPLE: tl.constexpr,
):  # fmt: skip
    """One tile of output pixels × channels, as a matrix product of depth TAPS · C; see `conv_w4`."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    half = tl.arange(0, 32)
    K = TAPS * C
    image, top, left = pixels_of_rows(tl.where(in_rows, rows, 0), OH, OW, STRIDE, TAPS)
    pictures = x + image.to(tl.int64) * (H * W * C)
    channels = tl.where(in_columns, columns, 0).to(tl.int64)[:, None]
    w_tile = weight + channels * (K // 2) + half[None, :]
    scales = scale + tl.where(in_columns, columns, 0).to(tl.int64) * (K // GROUP)
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    if AHEAD:
        next_low, next_high = group_scales(scales, 0, GROUP)
    tap = 0
    c = 0
    for step in range(0, K, 64):
        pixel, inside = pixels_of_tap(top, left, tap, H, W, OH, OW, UPSAMPLE, TAPS)
        x_tile = pictures[None, :] + (pixel * C + c)[None, :] + half[:, None]
        packed = tl.load(w_tile)
        low = tl.load(x_tile, mask=inside[None, :], other=0.0)
        high = tl.load(x_tile + 32, mask=inside[None, :], other=0.0)
        if AHEAD:
            s_low, s_high = next_low, next_high
            next_low, next_high = group_scales(scales, tl.minimum(step + 64, K - 64), GROUP)
        else:
            s_low, s_high = group_scales(scales, step, GROUP)
        total = tl.dot(scaled(signed_nibbles(packed & 15, DTYPE), s_low[:, None], DTYPE), low, total)
        total = tl.dot(scaled(signed_nibbles(packed >> 4, DTYPE), s_high[:, None], DTYPE), high, total)
        w_tile += 32
        c += 64
        tap = tl.where(c == C, tap + 1, tap)
        c = tl.where(c == C, 0, c)
    finish(total, bias, time, residual, out, rows, columns, in_rows, in_columns, image, N)


@triton.jit(do_not_specialize=PIXELS)
def conv_w8_kernel(
    x, weight, scale, bias, time, residual, out, M, N, C, H, W, OH, OW,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, UPSAMPLE: tl.constexpr,
):  # fmt: skip
    """`conv_w4_kernel` on int8 weights with a scale for each output channel; see `conv_w8`."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    depth = tl.arange(0, 64)
    K = TAPS * C
    image, top, left = pixels_of_rows(tl.where(in_rows, rows, 0), OH, OW, STRIDE, TAPS)
    pictures = x + image.to(tl.int64) * (H * W * C)
    w_tile = weight + tl.where(in_columns, columns, 0).to(tl.int64)[:, None] * K + depth[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    tap = 0
    c = 0
    for _ in range(0, K, 64):
        pixel, inside = pixels_of_tap(top, left, tap, H, W, OH, OW, UPSAMPLE, TAPS)
        x_tile = pictures[None, :] + (pixel * C + c)[None, :] + depth[:, None]
        a = tl.load(x_tile, mask=inside[None, :], other=0.0)
        total = tl.dot(from_bytes(tl.load(w_tile), DTYPE), a, total)
        w_tile += 64
        c += 64
        tap = tl.where(c == C, tap + 1, tap)
        c = tl.where(c == C, 0, c)
    total *= tl.load(scale + columns, mask=in_columns, other=0.0)[:, None]
    finish(total, bias, time, residual, out, rows, columns, in_rows, in_columns, image, N)
