"""Triton: 2-D convolution of 8-bit pictures as an implicit matrix product on NHWC."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..linear.kernel import tile_of_program


@triton.jit
def multiply_taps(
    total, x, weight, picture, top, left, in_rows, columns, first, last, H, W, C, seen_height, seen_width,
    tap_stride, row_stride,
    KERNEL: tl.constexpr, UPSAMPLE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_C: tl.constexpr,
):  # fmt: skip
    """`total` (BLOCK_M, BLOCK_N) and the sums of a tile over steps `first` to `last`.

    A step is one tap and BLOCK_K channels, channels run fastest.

    `top` and `left` are the pixel under each row's tap (0, 0), on the enlarged picture where UPSAMPLE. One loop over
    all steps, since a loop a tap would drain its pipeline nine times; what a step adds to the addresses is a scalar.
    """
    ACC: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    depth = tl.arange(0, BLOCK_K)
    # One bit a tap: whether it lies inside the picture. Rows beyond the end have none.
    inside = tl.zeros((BLOCK_M,), dtype=tl.int32)
    for tap in tl.static_range(KERNEL * KERNEL):
        y = top + tap // KERNEL
        z = left + tap % KERNEL
        within = in_rows & (y >= 0) & (y < seen_height) & (z >= 0) & (z < seen_width)
        inside |= within.to(tl.int32) << tap
    picture = x + picture.to(tl.int64) * H * W * C
    pixel = picture + (top.to(tl.int64) * W + left) * C
    filters = weight + columns.to(tl.int64) * row_stride
    blocks = tl.cdiv(C, BLOCK_K)
    tap = first // blocks
    channel = first % blocks * BLOCK_K
    for _ in range(first, last):
        if UPSAMPLE:
            source = ((top + tap // KERNEL) >> 1) * W + ((left + tap % KERNEL) >> 1)
            x_tile = (picture + source.to(tl.int64) * C)[:, None] + (channel + depth)[None, :]
        else:
            x_tile = pixel[:, None] + ((tap // KERNEL * W + tap % KERNEL) * C + channel + depth)[None, :]
        w_tile = filters[:, None] + (tap * tap_stride + channel + depth)[None, :]
        taken = ((inside >> tap) & 1)[:, None] != 0
        if EVEN_C:
            a = tl.load(x_tile, mask=taken, other=0.0)
            b = tl.load(w_tile)
        else:
            a = tl.load(x_tile, mask=taken & (depth[None, :] < C - channel), other=0.0)
            b = tl.load(w_tile, mask=depth[None, :] < C - channel, other=0.0)
        # Transposed here, not where it is loaded: else Triton's prefetch, on sm_8x, unpacks operands to single bytes.
        if ACC == tl.int32:
            total = tl.dot(a, tl.trans(b), total, out_dtype=ACC)
        else:
            # Hopper's matrix units keep 14 bits of a float8 sum: every step goes to a float32 one.
            total = tl.dot(a, tl.trans(b), total, out_dtype=ACC, max_num_imprecise_acc=BLOCK_K)
        ends = channel + BLOCK_K >= C
        tap += ends.to(tl.int32)
        channel = tl.where(ends, 0, channel + BLOCK_K)
    return total


@triton.jit
def store_sums(
    value, rows, columns, picture, weight_scale, bias, time, residual, out, M, N,
):  # fmt: skip
    """Scale a tile by its weights (None: as it is), add what is added, round once, store."""
    in_rows = rows < M
    in_columns = columns < N
    inside = in_rows[:, None] & in_columns[None, :]
    if weight_scale is not None:
        value = value * tl.load(weight_scale + columns, mask=in_columns, other=0.0)[None, :]
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    if time is not None:
        # A tile may cross pictures: each row has its own picture's vector.
        value += tl.load(time + (picture.to(tl.int64) * N)[:, None] + columns[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
    places = rows.to(tl.int64)[:, None] * N + columns[None, :]
    if residual is not None:
        value += tl.load(residual + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B", "H", "W", "SEEN_H", "SEEN_W"])
def conv_w8a8_kernel(
    x, x_scale, x2, x2_scale, weight, weight_scale, bias, time, residual, out, B, H, W, SEEN_H, SEEN_W, C, C2, N,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, UPSAMPLE: tl.constexpr, SHARED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HALVES: tl.constexpr, EVEN_C: tl.constexpr,
):  # fmt: skip
    """One tile of rows (B*Ho*Wo) by output channels; see `conv_w8a8`.

    SEEN_H, SEEN_W: the picture's size as the convolution sees it: H, W, or what UPSAMPLE enlarges it to.
    Where the sum is SHARED, the second axis of the grid shares out the steps, and `out` (splits, B*Ho*Wo, N) takes bare
    sums.
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
    ACC: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    total = multiply_taps(
        tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC), x, weight, picture, top, left, in_rows, filters,
        first, last, H, W, C, SEEN_H, SEEN_W, channels, taps * channels,
        KERNEL, UPSAMPLE, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_C,
    )  # fmt: skip
    if SHARED:
        places = (tl.program_id(1).to(tl.int64) * M + rows)[:, None] * N + columns[None, :]
        tl.store(out + places, total, mask=in_rows[:, None] & (columns < N)[None, :])
    else:
        value = total.to(tl.float32) * tl.load(x_scale + picture)[:, None]
        if x2 is not None:
            total2 = multiply_taps(
                tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC), x2, weight + C, picture, top, left, in_rows, filters,
                0, taps * tl.cdiv(C2, BLOCK_K), H, W, C2, SEEN_H, SEEN_W, channels, taps * channels,
                KERNEL, UPSAMPLE, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_C,
            )  # fmt: skip
            value += total2.to(tl.float32) * tl.load(x2_scale + picture)[:, None]
        if HALVES:
            # Half a tile after the other: what is added to a big tile would not fit the registers at once.
            low, high = tl.split(tl.permute(tl.reshape(value, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
            columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N // 2)
            store_sums(low, rows, columns, picture, weight_scale, bias, time, residual, out, M, N)
            columns += BLOCK_N // 2
            store_sums(high, rows, columns, picture, weight_scale, bias, time, residual, out, M, N)
        else:
            store_sums(value, rows, columns, picture, weight_scale, bias, time, residual, out, M, N)


@triton.jit(do_not_specialize=["B", "PIXELS", "splits"])
def conv_sum_kernel(
    sums, x_scale, weight_scale, bias, time, residual, out, B, PIXELS, N, splits,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add up the shares `sums` (splits, B*PIXELS, N) of a convolution, in order, and finish it."""
    M = B * PIXELS
    tiles_n = tl.cdiv(N, BLOCK_N)
    rows = tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    inside = in_rows[:, None] & (columns < N)[None, :]
    picture = tl.where(in_rows, rows, 0) // PIXELS
    places = sums + rows.to(tl.int64)[:, None] * N + columns[None, :]
    share = M.to(tl.int64) * N
    total = tl.load(places, mask=inside, other=0)
    for _ in range(1, splits):
        places += share
        total += tl.load(places, mask=inside, other=0)
    value = total.to(tl.float32)
    if x_scale is not None:
        value = value * tl.load(x_scale + picture)[:, None]
    store_sums(value, rows, columns, picture, weight_scale, bias, time, residual, out, M, N)
