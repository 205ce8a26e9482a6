"""Triton: 8-bit × 8-bit matrix products whose epilogue dequantizes, adds and, for GEGLU, gates."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..quantize.kernel import narrowed


@triton.jit
def tile_of_program(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of this program's tile; tiles run down GROUP_M rows first: weights stay in the L2 cache."""
    program = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    in_group = GROUP_M * tiles_n
    first = program // in_group * GROUP_M
    height = tl.minimum(tiles_m - first, GROUP_M)
    return first + program % in_group % height, program % in_group // height


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


@triton.jit(do_not_specialize=["M"])
def linear_w8a8_kernel(
    x, x_scale, weight, weight_scale, bias, residual, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HALVES: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """One tile of `x (M, K) @ weight (N, K)^T`; see `linear_w8a8`."""
    ACC: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    tile_m, tile_n = tile_of_program(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < M
    depth = tl.arange(0, BLOCK_K)[None, :]
    # Rows beyond the end read the first row again and are never stored: no mask on the operands' rows.
    x_tile = x + tl.where(in_rows, rows, 0).to(tl.int64)[:, None] * K + depth
    w_tile = weight + tl.where(columns < N, columns, 0).to(tl.int64)[:, None] * K + depth
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACC)
    for k in range(0, K, BLOCK_K):
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
    value = total.to(tl.float32)
    if x_scale is not None:
        value *= tl.load(x_scale + rows, mask=in_rows, other=0.0)[:, None]
    if HALVES:
        # Half a tile after the other: what is added to a big tile would not fit the registers at once.
        low, high = tl.split(tl.permute(tl.reshape(value, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        store_tile(low, tile_m, tile_n * BLOCK_N, weight_scale, bias, residual, out, M, N, BLOCK_M)
        store_tile(high, tile_m, tile_n * BLOCK_N + BLOCK_N // 2, weight_scale, bias, residual, out, M, N, BLOCK_M)
    else:
        store_tile(value, tile_m, tile_n * BLOCK_N, weight_scale, bias, residual, out, M, N, BLOCK_M)


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
    gated = value * (0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476)))
    corner = tile_m.to(tl.int64) * BLOCK_M * N + tile_n * BLOCK_N
    places = tl.arange(0, BLOCK_M)[:, None] * N + tl.arange(0, BLOCK_N)[None, :]
    if inverse is None:
        gated = gated.to(out.dtype.element_ty)
    else:
        gated = narrowed(gated * tl.load(inverse + columns, mask=in_columns, other=0.0)[None, :], tl.int8)
    tl.store(out + corner + places, gated, mask=in_rows[:, None] & in_columns[None, :])
