"""Gluon: convolution of int8 pictures as an implicit matrix product on NHWC, for sm_90.

As in the linears of `hopper`: a step is in flight while later ones are copied past the registers, and a tile has two
column parts: 128 + 32 and 128 + 64 share out SDXL's channels evenly. A tap that lies outside the picture is a copy of
no bytes, which fills with zeros.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from ..hopper.kernel import tile_of_program


@gluon.jit
def copy_taps(
    to, x, picture, top, left, inside, tap, channel, W, C,
    KERNEL: gl.constexpr, UPSAMPLE: gl.constexpr, BLOCK_K: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """Begin the copy of one tap's BLOCK_K channels from `channel` on, for every row of the tile."""
    depth = gl.arange(0, BLOCK_K, layout=gl.SliceLayout(0, LAYOUT))
    if UPSAMPLE:
        source = ((top + tap // KERNEL) >> 1) * W + ((left + tap % KERNEL) >> 1)
        pointers = (picture + source.to(gl.int64) * C)[:, None] + (channel + depth)[None, :]
    else:
        pointers = picture[:, None] + ((tap // KERNEL * W + tap % KERNEL) * C + channel + depth)[None, :]
    taken = gl.expand_dims(((inside >> tap) & 1) != 0, 1)
    async_copy.async_copy_global_to_shared(to, pointers, mask=gl.broadcast(taken, pointers)[0])


@gluon.jit
def filter_pointers(weight, first, N, row_stride, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, LAYOUT: gl.constexpr):
    """Pointers to the first BLOCK_K bytes of ROWS filters; those from N on read filter 0 and are never stored."""
    rows = first + gl.arange(0, ROWS, layout=gl.SliceLayout(1, LAYOUT))
    depth = gl.arange(0, BLOCK_K, layout=gl.SliceLayout(0, LAYOUT))
    return weight + gl.where(rows < N, rows, 0).to(gl.int64)[:, None] * row_stride + depth[None, :]


@gluon.jit
def convolve(
    x, weight, first_row, first_column, first, last, M, N, H, W, C, jump, height, width, seen_height, seen_width,
    KERNEL: gl.constexpr, STRIDE: gl.constexpr, UPSAMPLE: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, SECOND_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    """int32 sums of one tile over steps `first` to `last`: a step is one tap and BLOCK_K channels, which run fastest.

    `jump`: channels between those of two taps in the filters: those of another picture. There are STAGES - 2 steps at
    least. Buffers are used in turn as `products` of the linears says.
    """
    PAD: gl.constexpr = KERNEL // 2
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 16], [512 // BLOCK_K, BLOCK_K // 16], [WARPS, 1], [1, 0])
    SHARED: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=BLOCK_K, element_bitwidth=8, rank=2)
    SUMS: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[WARPS, 1], instr_shape=[16, BLOCK_N, 32]
    )
    MORE: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[WARPS, 1], instr_shape=[16, SECOND_N, 32]
    )
    rows = first_row + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, LAYOUT))
    at = gl.where(rows < M, rows, 0)
    top = at // width % height * STRIDE - PAD
    left = at % width * STRIDE - PAD
    # One bit a tap: whether it lies inside the picture. Rows beyond the end have none.
    inside = gl.zeros([BLOCK_M], gl.int32, gl.SliceLayout(1, LAYOUT))
    for tap in gl.static_range(KERNEL * KERNEL):
        y = top + tap // KERNEL
        z = left + tap % KERNEL
        within = (rows < M) & (y >= 0) & (y < seen_height) & (z >= 0) & (z < seen_width)
        inside |= within.to(gl.int32) << tap
    picture = x + (at // (height * width)).to(gl.int64) * H * W * C
    if not UPSAMPLE:
        picture += (top.to(gl.int64) * W + left) * C
    depth = KERNEL * KERNEL * (C + jump)
    a = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_M, BLOCK_K], SHARED)
    b = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_N, BLOCK_K], SHARED)
    c = gl.allocate_shared_memory(gl.int8, [STAGES, SECOND_N, BLOCK_K], SHARED)
    blocks = C // BLOCK_K
    tap = first // blocks
    channel = first % blocks * BLOCK_K
    # Filters lie as steps run: taps, then channels.
    weight += tap * (C + jump) + channel
    from_b = filter_pointers(weight, first_column, N, depth, BLOCK_N, BLOCK_K, LAYOUT)
    from_c = filter_pointers(weight, first_column + BLOCK_N, N, depth, SECOND_N, BLOCK_K, LAYOUT)
    for ahead in gl.static_range(STAGES - 2):
        copy_taps(a.index(ahead), x, picture, top, left, inside, tap, channel, W, C, KERNEL, UPSAMPLE, BLOCK_K, LAYOUT)
        async_copy.async_copy_global_to_shared(b.index(ahead), from_b)
        async_copy.async_copy_global_to_shared(c.index(ahead), from_c)
        async_copy.commit_group()
        ends = channel + BLOCK_K >= C
        from_b += gl.where(ends, BLOCK_K + jump, BLOCK_K)
        from_c += gl.where(ends, BLOCK_K + jump, BLOCK_K)
        tap += ends.to(gl.int32)
        channel = gl.where(ends, 0, channel + BLOCK_K)
    sums = warpgroup_mma_init(gl.zeros([BLOCK_M, BLOCK_N], gl.int32, SUMS))
    more = warpgroup_mma_init(gl.zeros([BLOCK_M, SECOND_N], gl.int32, MORE))
    slot = 0
    free = STAGES - 2
    for step in range(first, last):
        async_copy.wait_group(STAGES - 3)
        fence_async_shared()
        gl.barrier()
        sums = warpgroup_mma(a.index(slot), b.index(slot).permute((1, 0)), sums, is_async=True)
        more = warpgroup_mma(a.index(slot), c.index(slot).permute((1, 0)), more, is_async=True)
        if step + (STAGES - 2) < last:
            copy_taps(
                a.index(free), x, picture, top, left, inside, tap, channel, W, C, KERNEL, UPSAMPLE, BLOCK_K, LAYOUT
            )
            async_copy.async_copy_global_to_shared(b.index(free), from_b)
            async_copy.async_copy_global_to_shared(c.index(free), from_c)
        async_copy.commit_group()
        ends = channel + BLOCK_K >= C
        from_b += gl.where(ends, BLOCK_K + jump, BLOCK_K)
        from_c += gl.where(ends, BLOCK_K + jump, BLOCK_K)
        tap += ends.to(gl.int32)
        channel = gl.where(ends, 0, channel + BLOCK_K)
        slot = gl.where(slot == STAGES - 1, 0, slot + 1)
        free = gl.where(free == STAGES - 1, 0, free + 1)
        done, done_more = warpgroup_mma_wait(2, deps=(sums, more))
        sums = warpgroup_mma_init(done)
        more = warpgroup_mma_init(done_more)
    return warpgroup_mma_wait(0, deps=(sums, more))


@gluon.jit
def store_part(
    sums, x_scale, sums2, x2_scale, weight_scale, bias, time, residual, out, first_row, first, M, N, pixels,
    BLOCK_M: gl.constexpr, COLUMNS: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    """Scale by picture and filter, add, round once and store COLUMNS columns from `first` on.

    A tile may cross pictures: each row has its own picture's scale and vector of the time.
    """
    SUMS: gl.constexpr = sums.type.layout
    WIDE: gl.constexpr = gl.BlockedLayout([1, 8], [256 // COLUMNS, COLUMNS // 8], [WARPS, 1], [1, 0])
    rows = first_row + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, SUMS))
    columns = first + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, SUMS))
    picture = gl.where(rows < M, rows, 0) // pixels
    value = sums.to(gl.float32) * gl.load(x_scale + picture)[:, None]
    if sums2 is not None:
        value += sums2.to(gl.float32) * gl.load(x2_scale + picture)[:, None]
    value *= gl.load(weight_scale + columns, mask=columns < N, other=0.0)[None, :]
    if bias is not None:
        value += gl.load(bias + columns, mask=columns < N, other=0.0).to(gl.float32)[None, :]
    wide_rows = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, WIDE))
    wide_columns = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, WIDE))
    inside = (first_row + wide_rows < M)[:, None] & (first + wide_columns < N)[None, :]
    places = wide_rows[:, None] * N + wide_columns[None, :]
    # What is added is read in whole lines, then brought to where the sums are, in 16 bits.
    if time is not None:
        there = gl.where(first_row + wide_rows < M, first_row + wide_rows, 0) // pixels
        added = gl.load(time + there[:, None] * N + (first + wide_columns)[None, :], mask=inside, other=0.0)
        value += gl.convert_layout(added, SUMS).to(gl.float32)
    corner = first_row.to(gl.int64) * N + first
    if residual is not None:
        added = gl.load(residual + corner + places, mask=inside, other=0.0)
        value += gl.convert_layout(added, SUMS).to(gl.float32)
    gl.store(out + corner + places, gl.convert_layout(value.to(out.dtype.element_ty), WIDE), mask=inside)


@gluon.jit
def store_share(sums, out, first_row, first, M, N, BLOCK_M: gl.constexpr, COLUMNS: gl.constexpr):
    """Store bare sums of a share; `out` (splits, M, N)."""
    SUMS: gl.constexpr = sums.type.layout
    rows = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, SUMS))
    columns = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, SUMS))
    inside = (first_row + rows < M)[:, None] & (first + columns < N)[None, :]
    corner = (gl.program_id(1).to(gl.int64) * M + first_row) * N + first
    gl.store(out + corner + (rows[:, None] * N + columns[None, :]), sums, mask=inside)


@gluon.jit(do_not_specialize=["B", "H", "W", "SEEN_H", "SEEN_W"])
def conv_w8a8_async_kernel(
    x, x_scale, x2, x2_scale, weight, weight_scale, bias, time, residual, out, B, H, W, SEEN_H, SEEN_W, C, C2, N,
    KERNEL: gl.constexpr, STRIDE: gl.constexpr, UPSAMPLE: gl.constexpr, SHARED: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, SECOND_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """One tile, BLOCK_N + SECOND_N channels wide, as `conv_w8a8_kernel`; channels of both pictures are whole steps."""
    WARPS: gl.constexpr = gl.num_warps()
    PAD: gl.constexpr = KERNEL // 2
    TAPS: gl.constexpr = KERNEL * KERNEL
    height = (SEEN_H + 2 * PAD - KERNEL) // STRIDE + 1
    width = (SEEN_W + 2 * PAD - KERNEL) // STRIDE + 1
    pixels = height * width
    M = B * pixels
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N + SECOND_N, GROUP_M)
    row = tile_m * BLOCK_M
    column = tile_n * (BLOCK_N + SECOND_N)
    steps = TAPS * (C // BLOCK_K)
    first = gl.program_id(1) * steps // gl.num_programs(1) if SHARED else 0
    last = (gl.program_id(1) + 1) * steps // gl.num_programs(1) if SHARED else steps
    sums, more = convolve(
        x, weight, row, column, first, last, M, N, H, W, C, 0 if x2 is None else C2, height, width, SEEN_H, SEEN_W,
        KERNEL, STRIDE, UPSAMPLE, BLOCK_M, BLOCK_N, SECOND_N, BLOCK_K, STAGES, WARPS,
    )  # fmt: skip
    if SHARED:
        store_share(sums, out, row, column, M, N, BLOCK_M, BLOCK_N)
        store_share(more, out, row, column + BLOCK_N, M, N, BLOCK_M, SECOND_N)
    else:
        sums2 = None
        more2 = None
        if x2 is not None:
            gl.barrier()  # every warp is done with the buffers of the first picture
            sums2, more2 = convolve(
                x2, weight + C, row, column, 0, TAPS * (C2 // BLOCK_K), M, N, H, W, C2, C, height, width,
                SEEN_H, SEEN_W, KERNEL, STRIDE, UPSAMPLE, BLOCK_M, BLOCK_N, SECOND_N, BLOCK_K, STAGES, WARPS,
            )  # fmt: skip
        store_part(
            sums, x_scale, sums2, x2_scale, weight_scale, bias, time, residual, out, row, column, M, N, pixels,
            BLOCK_M, BLOCK_N, WARPS,
        )  # fmt: skip
        store_part(
            more, x_scale, more2, x2_scale, weight_scale, bias, time, residual, out, row, column + BLOCK_N, M, N,
            pixels, BLOCK_M, SECOND_N, WARPS,
        )  # fmt: skip
