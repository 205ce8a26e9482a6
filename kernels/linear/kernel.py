"""Triton: 8-bit × 8-bit matrix products whose epilogue dequantizes, adds and, for GEGLU, gates."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..activations import gelu
from ..quantize.kernel import narrowed


@triton.jit
def tile_of_program(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of this program's tile."""
    return place_of_tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)


@triton.jit
def place_of_tile(tile, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of a tile; tiles run down GROUP_M rows first: weights stay in the L2 cache."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    in_group = GROUP_M * tiles_n
    first = tile // in_group * GROUP_M
    height = tl.minimum(tiles_m - first, GROUP_M)
    return first + tile % in_group % height, tile % in_group // height


@triton.jit
def store_tile(value, tile_m, first, weight_scale, bias, residual, out, M, N, BLOCK_M: tl.constexpr):
    """Scale columns from `first` on by their weights, add what is added, round once, store."""
    columns = first + tl.arange(0, value.shape[1])
    in_columns = columns < N
    inside = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M) < M)[:, None] & in_columns[None, :]
    value = value * tl.load(weight_scale + columns, mask=in_columns, other=0.0)[None, :]
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    # The tile's corner takes 64 bits, places in it 32: half the registers of 64 bits everywhere.
    corner = tile_m.to(tl.int64) * BLOCK_M * N + first
    places = tl.arange(0, BLOCK_M)[:, None] * N + tl.arange(0, value.shape[1])[None, :]
    if residual is not None:
        value += tl.load(residual + corner + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + corner + places, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def multiply_steps(
    x, weight, rows, columns, M, N, K, first, last,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Sums (BLOCK_M, BLOCK_N) of a tile over steps `first` to `last` of its depth."""
    ACC: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    depth = tl.arange(0, BLOCK_K)[None, :]
    begin = first * BLOCK_K
    # Rows beyond the end read the first row again and are never stored: no mask on the operands' rows.
    x_tile = x + tl.where(rows < M, rows, 0).to(tl.int64)[:, None] * K + begin + depth
    w_tile = weight + tl.where(columns < N, columns, 0).to(tl.int64)[:, None] * K + begin + depth
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC)
    for k in range(begin, last * BLOCK_K, BLOCK_K):
        if EVEN_K:
            a = tl.load(x_tile)
            b = tl.load(w_tile)
        else:
            a = tl.load(x_tile, mask=depth < K - k, other=0.0)
            b = tl.load(w_tile, mask=depth < K - k, other=0.0)
        # Loaded as it lies and transposed here: loaded transposed, Triton unpacks int8 to single bytes for mma.sync.
        total = tl.dot(a, tl.trans(b), total, out_dtype=ACC, max_num_imprecise_acc=BLOCK_K)
        x_tile += BLOCK_K
        w_tile += BLOCK_K
    return total


@triton.jit(do_not_specialize=["M", "whole", "sharers"])
def linear_w8a8_kernel(
    x, x_scale, weight, weight_scale, bias, residual, out, sums, M, N, K, whole, sharers,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HALVES: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """A tile of `x (M, K) @ weight (N, K)^T`, or a share of those that fill no round; see `linear_w8a8`.

    Programs from `whole` on, `sharers` of them, share out the steps of the tiles from `whole` on, each a range of them,
    and write the bare sums of its one or two tiles to `sums` (sharers + tiles - 1, BLOCK_M, BLOCK_N): what a sharer has
    of a tile stands at the sum of both their numbers, which no other two have.
    """
    steps = tl.cdiv(K, BLOCK_K)
    program = tl.program_id(0)
    begin, end = program * steps, (program + 1) * steps
    shares = program >= whole
    if shares:
        of_all = (tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N) - whole) * steps
        begin = whole * steps + (program - whole) * of_all // sharers
        end = whole * steps + (program - whole + 1) * of_all // sharers
    for tile in tl.range(begin // steps, tl.cdiv(end, steps), disable_licm=True):
        tile_m, tile_n = place_of_tile(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
        columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
        first = tl.maximum(begin - tile * steps, 0)
        last = tl.minimum(end - tile * steps, steps)
        total = multiply_steps(x, weight, rows, columns, M, N, K, first, last, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_K)
        if shares:
            slot = program - whole + tile - whole
            places = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
            tl.store(sums + slot.to(tl.int64) * (BLOCK_M * BLOCK_N) + places, total.to(tl.int32))
        else:
            value = total.to(tl.float32)
            if x_scale is not None:
                value *= tl.load(x_scale + rows, mask=rows < M, other=0.0)[:, None]
            if HALVES:
                # Half a tile after the other: what is added to a big tile would not fit the registers at once.
                low, high = tl.split(tl.permute(tl.reshape(value, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
                left = tile_n * BLOCK_N
                store_tile(low, tile_m, left, weight_scale, bias, residual, out, M, N, BLOCK_M)
                store_tile(high, tile_m, left + BLOCK_N // 2, weight_scale, bias, residual, out, M, N, BLOCK_M)
            else:
                store_tile(value, tile_m, tile_n * BLOCK_N, weight_scale, bias, residual, out, M, N, BLOCK_M)


@triton.jit(do_not_specialize=["M", "whole", "sharers", "steps"])
def linear_sum_kernel(
    sums, x_scale, weight_scale, bias, residual, out, M, N, whole, sharers, steps,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add up some rows of a tile whose `steps` `linear_w8a8_kernel` has shared out, and finish them."""
    tile = tl.program_id(0)
    of_all = tl.num_programs(0) * steps
    # A sharer's range begins at sharer * of_all // sharers: the last that begins at or before the tile, and at its end.
    first = ((tile * steps + 1) * sharers - 1) // of_all
    last = ((tile + 1) * steps * sharers - 1) // of_all
    begin = tl.program_id(1) * ROWS
    places = (begin + tl.arange(0, ROWS))[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((ROWS, BLOCK_N), tl.int32)
    for sharer in range(first, last + 1):
        total += tl.load(sums + (sharer + tile).to(tl.int64) * (BLOCK_M * BLOCK_N) + places)
    tile_m, tile_n = place_of_tile(whole + tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
    value = total.to(tl.float32)
    block = tile_m * (BLOCK_M // ROWS) + tl.program_id(1)
    if x_scale is not None:
        rows = block * ROWS + tl.arange(0, ROWS)
        value *= tl.load(x_scale + rows, mask=rows < M, other=0.0)[:, None]
    store_tile(value, block, tile_n * BLOCK_N, weight_scale, bias, residual, out, M, N, ROWS)


@triton.jit(do_not_specialize=["M"])
def geglu_linear_w8a8_kernel(
    x, x_scale, weight, weight_scale, bias, inverse, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    EVEN_K: tl.constexpr,
):  # fmt: skip
    """One tile of `value * gelu(gate)`, where `weight` (2N, K) holds the value rows, then the gate rows.

    With `inverse` times that of each column, in 8 bits.
    """
    ACC: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    in_columns = columns < N
    depth = tl.arange(0, BLOCK_K)[None, :]
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[:, None] * K + depth
    w_tile = weight + tl.where(in_columns, columns, 0).to(tl.int64)[:, None] * K + depth
    g_tile = w_tile + N.to(tl.int64) * K
    values = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC)
    gates = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC)
    for k in range(0, K, BLOCK_K):
        if EVEN_K:
            a = tl.load(x_tile)
            b = tl.load(w_tile)
            c = tl.load(g_tile)
        else:
            a = tl.load(x_tile, mask=depth < K - k, other=0.0)
            b = tl.load(w_tile, mask=depth < K - k, other=0.0)
            c = tl.load(g_tile, mask=depth < K - k, other=0.0)
        values = tl.dot(a, tl.trans(b), values, out_dtype=ACC, max_num_imprecise_acc=BLOCK_K)
        gates = tl.dot(a, tl.trans(c), gates, out_dtype=ACC, max_num_imprecise_acc=BLOCK_K)
        x_tile += BLOCK_K
        w_tile += BLOCK_K
        g_tile += BLOCK_K
    scale = tl.load(x_scale + rows, mask=in_rows, other=0.0)[:, None]
    value = values.to(tl.float32) * scale * tl.load(weight_scale + columns, mask=in_columns, other=0.0)[None, :]
    gate = gates.to(tl.float32) * scale * tl.load(weight_scale + N + columns, mask=in_columns, other=0.0)[None, :]
    if bias is not None:
        value += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(bias + N + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    gated = value * gelu(gate)
    corner = tile_m.to(tl.int64) * BLOCK_M * N + tile_n * BLOCK_N
    places = tl.arange(0, BLOCK_M)[:, None] * N + tl.arange(0, BLOCK_N)[None, :]
    if inverse is None:
        gated = gated.to(out.dtype.element_ty)
    else:
        gated = narrowed(gated * tl.load(inverse + columns, mask=in_columns, other=0.0)[None, :], tl.int8)
    tl.store(out + corner + places, gated, mask=in_rows[:, None] & in_columns[None, :])
