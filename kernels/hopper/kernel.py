"""Gluon: the 8-bit linears for sm_90, with one step of matrix instructions always in flight.

Triton waits for every int8 `wgmma` before it goes on; here the wait is for the step before. A tile has two column
parts: one of 128 and one of 32 make 160, which fills 132 multiprocessors where powers of two do not, and GEGLU's value
and gate are two parts of one size.
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

from ..activations import TAIL_1, TAIL_2, TAIL_3, TAIL_4, TAIL_5, TAIL_6, TAIL_7, TAIL_8


@gluon.jit
def narrowed(value):
    """Float32, already divided by the scale, to int8, ties to even: as `quantize.kernel.narrowed`."""
    value = gl.minimum(gl.maximum(value, -127.0), 127.0)
    return (value + 12582912.0).to(gl.int32, bitcast=True).to(gl.int8)


@gluon.jit
def gelu(x):
    """`x * Φ(x)`, float32: as `kernels.activations.gelu`."""
    far = gl.abs(x)
    power = TAIL_8 * far + TAIL_7
    power = power * far + TAIL_6
    power = power * far + TAIL_5
    power = power * far + TAIL_4
    power = power * far + TAIL_3
    power = power * far + TAIL_2
    power = power * far + TAIL_1
    tail = gl.exp2(power * far - 1.0)
    return x * gl.where(x < 0.0, tail, 1.0 - tail)


@gluon.jit
def tile_of_program(M, N, BLOCK_M: gl.constexpr, WIDTH: gl.constexpr, GROUP_M: gl.constexpr):
    """Row and column of this program's tile; tiles run down GROUP_M rows first: weights stay in the L2 cache."""
    program = gl.program_id(0)
    tiles_m = gl.cdiv(M, BLOCK_M)
    in_group = GROUP_M * gl.cdiv(N, WIDTH)
    first = program // in_group * GROUP_M
    height = gl.minimum(tiles_m - first, GROUP_M)
    return first + program % in_group % height, program % in_group // height


@gluon.jit
def tile_pointers(base, first, end, K, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, WARPS: gl.constexpr):
    """Pointers to the first BLOCK_K bytes of ROWS rows, 16 bytes a thread; rows from `end` on read row 0 instead."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 16], [512 // BLOCK_K, BLOCK_K // 16], [WARPS, 1], [1, 0])
    rows = first + gl.arange(0, ROWS, layout=gl.SliceLayout(1, LAYOUT))
    depth = gl.arange(0, BLOCK_K, layout=gl.SliceLayout(0, LAYOUT))
    return base + gl.where(rows < end, rows, 0).to(gl.int64)[:, None] * K + depth[None, :]


@gluon.jit
def products(
    x, weight, first_row, M, first, end, second, second_end, K,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, SECOND_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    """int32 sums of one tile: BLOCK_N columns from `first` on and SECOND_N from `second` on. K divides by BLOCK_K.

    Step k's matrix instructions are issued, then the copy of step k + STAGES - 2 goes into the buffers of step k - 2:
    behind the barrier of step k every warp has waited for its own instructions of that step.
    """
    SHARED: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=BLOCK_K, element_bitwidth=8, rank=2)
    SUMS: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[WARPS, 1], instr_shape=[16, BLOCK_N, 32]
    )
    a = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_M, BLOCK_K], SHARED)
    b = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK_N, BLOCK_K], SHARED)
    from_a = tile_pointers(x, first_row, M, K, BLOCK_M, BLOCK_K, WARPS)
    from_b = tile_pointers(weight, first, end, K, BLOCK_N, BLOCK_K, WARPS)
    if SECOND_N > 0:
        MORE: gl.constexpr = gl.NVMMADistributedLayout(
            version=[3, 0], warps_per_cta=[WARPS, 1], instr_shape=[16, SECOND_N, 32]
        )
        c = gl.allocate_shared_memory(gl.int8, [STAGES, SECOND_N, BLOCK_K], SHARED)
        from_c = tile_pointers(weight, second, second_end, K, SECOND_N, BLOCK_K, WARPS)
    steps = K // BLOCK_K
    for ahead in gl.static_range(STAGES - 2):
        async_copy.async_copy_global_to_shared(a.index(ahead), from_a + ahead * BLOCK_K)
        async_copy.async_copy_global_to_shared(b.index(ahead), from_b + ahead * BLOCK_K)
        if SECOND_N > 0:
            async_copy.async_copy_global_to_shared(c.index(ahead), from_c + ahead * BLOCK_K)
        async_copy.commit_group()
    from_a += (STAGES - 2) * BLOCK_K
    from_b += (STAGES - 2) * BLOCK_K
    if SECOND_N > 0:
        from_c += (STAGES - 2) * BLOCK_K
        more = warpgroup_mma_init(gl.zeros([BLOCK_M, SECOND_N], gl.int32, MORE))
    sums = warpgroup_mma_init(gl.zeros([BLOCK_M, BLOCK_N], gl.int32, SUMS))
    slot = 0
    free = STAGES - 2
    for k in range(steps):
        async_copy.wait_group(STAGES - 3)
        fence_async_shared()
        gl.barrier()
        sums = warpgroup_mma(a.index(slot), b.index(slot).permute((1, 0)), sums, is_async=True)
        if SECOND_N > 0:
            more = warpgroup_mma(a.index(slot), c.index(slot).permute((1, 0)), more, is_async=True)
        if k + (STAGES - 2) < steps:
            async_copy.async_copy_global_to_shared(a.index(free), from_a)
            async_copy.async_copy_global_to_shared(b.index(free), from_b)
            if SECOND_N > 0:
                async_copy.async_copy_global_to_shared(c.index(free), from_c)
        async_copy.commit_group()
        from_a += BLOCK_K
        from_b += BLOCK_K
        if SECOND_N > 0:
            from_c += BLOCK_K
        slot = gl.where(slot == STAGES - 1, 0, slot + 1)
        free = gl.where(free == STAGES - 1, 0, free + 1)
        if SECOND_N > 0:
            done, done_more = warpgroup_mma_wait(2, deps=(sums, more))
            sums = warpgroup_mma_init(done)
            more = warpgroup_mma_init(done_more)
        else:
            sums = warpgroup_mma_init(warpgroup_mma_wait(1, deps=(sums,)))
    if SECOND_N > 0:
        result = warpgroup_mma_wait(0, deps=(sums, more))
    else:
        result = warpgroup_mma_wait(0, deps=(sums,))
    return result


@gluon.jit
def store_part(
    sums, x_scale, weight_scale, bias, residual, out, first_row, first, M, N,
    BLOCK_M: gl.constexpr, COLUMNS: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    """Scale, add, round once and store COLUMNS columns from `first` on, as `store_tile` of the linears does."""
    SUMS: gl.constexpr = sums.type.layout
    WIDE: gl.constexpr = gl.BlockedLayout([1, 8], [256 // COLUMNS, COLUMNS // 8], [WARPS, 1], [1, 0])
    rows = first_row + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, SUMS))
    columns = first + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, SUMS))
    value = sums.to(gl.float32)
    if x_scale is not None:
        value *= gl.load(x_scale + rows, mask=rows < M, other=0.0)[:, None]
    value *= gl.load(weight_scale + columns, mask=columns < N, other=0.0)[None, :]
    if bias is not None:
        value += gl.load(bias + columns, mask=columns < N, other=0.0).to(gl.float32)[None, :]
    wide_rows = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, WIDE))
    wide_columns = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, WIDE))
    inside = (first_row + wide_rows < M)[:, None] & (first + wide_columns < N)[None, :]
    corner = first_row.to(gl.int64) * N + first
    places = wide_rows[:, None] * N + wide_columns[None, :]
    if residual is not None:
        # Read in whole lines, then brought to where the sums are, in 16 bits.
        added = gl.load(residual + corner + places, mask=inside, other=0.0)
        value += gl.convert_layout(added, SUMS).to(gl.float32)
    gl.store(out + corner + places, gl.convert_layout(value.to(out.dtype.element_ty), WIDE), mask=inside)


@gluon.jit(do_not_specialize=["M"])
def linear_w8a8_async_kernel(
    x, x_scale, weight, weight_scale, bias, residual, out, M, N, K,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, SECOND_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """One tile, BLOCK_N + SECOND_N columns wide, of `x (M, K) @ weight (N, K)^T`; see `linear_w8a8`."""
    WARPS: gl.constexpr = gl.num_warps()
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N + SECOND_N, GROUP_M)
    first_row = tile_m * BLOCK_M
    first = tile_n * (BLOCK_N + SECOND_N)
    found = products(
        x, weight, first_row, M, first, N, first + BLOCK_N, N, K,
        BLOCK_M, BLOCK_N, SECOND_N, BLOCK_K, STAGES, WARPS,
    )  # fmt: skip
    if SECOND_N > 0:
        store_part(
            found[0], x_scale, weight_scale, bias, residual, out, first_row, first, M, N, BLOCK_M, BLOCK_N, WARPS
        )
        store_part(
            found[1], x_scale, weight_scale, bias, residual, out, first_row, first + BLOCK_N, M, N,
            BLOCK_M, SECOND_N, WARPS,
        )  # fmt: skip
    else:
        store_part(found, x_scale, weight_scale, bias, residual, out, first_row, first, M, N, BLOCK_M, BLOCK_N, WARPS)


@gluon.jit(do_not_specialize=["M"])
def geglu_linear_w8a8_async_kernel(
    x, x_scale, weight, weight_scale, bias, inverse, out, M, N, K,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """One tile of `value * gelu(gate)`, where `weight` (2N, K) holds the value rows, then the gate rows.

    With `inverse` times that of each column, in 8 bits.
    """
    WARPS: gl.constexpr = gl.num_warps()
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    first_row = tile_m * BLOCK_M
    first = tile_n * BLOCK_N
    values, gates = products(
        x, weight, first_row, M, first, N, first + N, 2 * N, K,
        BLOCK_M, BLOCK_N, BLOCK_N, BLOCK_K, STAGES, WARPS,
    )  # fmt: skip
    SUMS: gl.constexpr = values.type.layout
    WIDE: gl.constexpr = gl.BlockedLayout([1, 8], [256 // BLOCK_N, BLOCK_N // 8], [WARPS, 1], [1, 0])
    rows = first_row + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, SUMS))
    columns = first + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, SUMS))
    in_columns = columns < N
    scale = gl.load(x_scale + rows, mask=rows < M, other=0.0)[:, None]
    value = values.to(gl.float32) * scale * gl.load(weight_scale + columns, mask=in_columns, other=0.0)[None, :]
    gate = gates.to(gl.float32) * scale * gl.load(weight_scale + N + columns, mask=in_columns, other=0.0)[None, :]
    if bias is not None:
        value += gl.load(bias + columns, mask=in_columns, other=0.0).to(gl.float32)[None, :]
        gate += gl.load(bias + N + columns, mask=in_columns, other=0.0).to(gl.float32)[None, :]
    gated = value * gelu(gate)
    wide_rows = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, WIDE))
    wide_columns = gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, WIDE))
    inside = (first_row + wide_rows < M)[:, None] & (first + wide_columns < N)[None, :]
    places = wide_rows[:, None] * N + wide_columns[None, :]
    # In 16 bits to where lines are whole: half the way through shared memory, and few factors a thread.
    rounded = gl.convert_layout(gated.to(gl.float16 if inverse is not None else out.dtype.element_ty), WIDE)
    if inverse is not None:
        factors = gl.load(inverse + first + wide_columns, mask=first + wide_columns < N, other=0.0)
        rounded = narrowed(rounded.to(gl.float32) * factors[None, :])
    gl.store(out + (first_row.to(gl.int64) * N + first) + places, rounded, mask=inside)
