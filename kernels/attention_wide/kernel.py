"""Triton: attention of one wide head, as two matrix products with the softmax's shares in memory between them.

A flash kernel keeps a float32 sum for each query and channel in registers, which at 512 channels leaves room for 64
queries. So few would read keys and values 64 operations a byte, more than the L2 of an H100 gives, and leave no shared
memory elsewhere for loads ahead. Here both products have the tiles of a linear: 128 x 128 and 128 x 256.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["M", "N", "first", "rows"])
def shares_kernel(
    q, k, shares, peak, weight, M, N, first, rows, q_stride, k_stride,
    CHANNELS: tl.constexpr, SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """Shares of a block of keys for a block of the queries from `first` on, relative to the best key of the block.

    `shares` is (batch, rows, blocks * BLOCK_N), 0 behind the last key; `peak`, the best key's product with the query,
    and `weight`, the sum of the shares, are (batch, blocks, rows), float32. SCALE makes products base-2 logarithms. A
    NaN among the products reaches its row through `weight`, whatever the maximum makes of it.
    """
    blocks = tl.cdiv(N, BLOCK_N)
    # Programs that run together read few blocks of queries and few of keys.
    program = tl.program_id(0)
    group = program // (GROUP_M * blocks) * GROUP_M
    height = tl.minimum(tl.num_programs(0) // blocks - group, GROUP_M)
    tile = group + program % height
    block = program % (GROUP_M * blocks) // height
    batch = tl.program_id(1).to(tl.int64)

    row = tl.arange(0, BLOCK_M)
    key = tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    first_row = first + tile * BLOCK_M
    first_key = block * BLOCK_N
    q += (batch * M + first_row) * q_stride
    k += (batch * N + first_key) * k_stride
    real_row = (row < M - first_row)[:, None]
    real_key = (key < N - first_key)[None, :]
    q_tile = row[:, None] * q_stride + inner[None, :]
    k_tile = key[None, :] * k_stride + inner[:, None]
    scores = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, CHANNELS, BLOCK_K):
        if CHANNELS % BLOCK_K == 0:
            queries = tl.load(q + q_tile, mask=real_row, other=0.0)
            keys = tl.load(k + k_tile, mask=real_key, other=0.0)
        else:
            inside = inner < CHANNELS - start
            queries = tl.load(q + q_tile, mask=real_row & inside[None, :], other=0.0)
            keys = tl.load(k + k_tile, mask=real_key & inside[:, None], other=0.0)
        scores = tl.dot(queries, keys, scores)
        q += BLOCK_K
        k += BLOCK_K

    scores = tl.where(real_key, scores, float("-inf"))
    best = tl.max(scores, 1)
    # Subtracted before it is scaled: no product is rounded past the best one, whose share is 1 exactly.
    share = tl.exp2((scores - best[:, None]) * SCALE)
    stats = (batch * blocks + block) * rows + tile * BLOCK_M
    tl.store(peak + stats + row, best)
    tl.store(weight + stats + row, tl.sum(share, 1))
    wide = blocks * BLOCK_N
    shares += (batch * rows + tile * BLOCK_M) * wide + first_key
    tl.store(shares + (row.to(tl.int64)[:, None] * wide + key[None, :]), share.to(shares.dtype.element_ty))


@triton.jit(do_not_specialize=["blocks", "rows"])
def totals_kernel(
    peak, weight, highest, total, blocks, rows, SCALE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Each query's best product with any key, and the sum of its shares relative to that; (batch, rows), float32."""
    batch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    block = tl.arange(0, BLOCK_N)
    peak += batch * blocks * rows
    weight += batch * blocks * rows
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, blocks, BLOCK_N):
        places = (start + block)[:, None] * rows + row[None, :]
        real = (start + block < blocks)[:, None]
        peaks = tl.load(peak + places, mask=real, other=float("-inf"))
        weights = tl.load(weight + places, mask=real, other=0.0)
        higher = tl.maximum(best, tl.max(peaks, 0))
        parts = weights * tl.exp2((peaks - higher[None, :]) * SCALE)
        sums = sums * tl.exp2((best - higher) * SCALE) + tl.sum(parts, 0)
        best = higher
    tl.store(highest + batch * rows + row, best)
    tl.store(total + batch * rows + row, sums)


@triton.jit(do_not_specialize=["M", "N", "first", "rows"])
def mix_kernel(
    shares, peak, highest, total, v, out, M, N, first, rows, v_stride,
    CHANNELS: tl.constexpr, SCALE: tl.constexpr, KEY_BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The values by their shares: a block of channels for a block of the queries from `first` on.

    What `shares_kernel` and `totals_kernel` left; KEY_BLOCK is the former's BLOCK_N, and BLOCK_K divides it.
    """
    columns: tl.constexpr = (CHANNELS + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) // columns  # programs that read the same shares run together
    batch = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_M)
    key = tl.arange(0, BLOCK_K)
    column = tl.program_id(0) % columns * BLOCK_N + tl.arange(0, BLOCK_N)
    blocks = tl.cdiv(N, KEY_BLOCK)
    wide = blocks * KEY_BLOCK
    shares += (batch * rows + tile * BLOCK_M) * wide
    peak += batch * blocks * rows + tile * BLOCK_M
    v += batch * N * v_stride
    best = tl.load(highest + batch * rows + tile * BLOCK_M + row)
    share_tile = row.to(tl.int64)[:, None] * wide + key[None, :]
    v_tile = key[:, None] * v_stride + column[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, N, BLOCK_K):
        real = (key < N - start)[:, None]
        if CHANNELS % BLOCK_N:
            real = real & (column < CHANNELS)[None, :]
        values = tl.load(v + v_tile, mask=real, other=0.0)
        factor = tl.exp2((tl.load(peak + start // KEY_BLOCK * rows + row) - best) * SCALE)
        share = tl.load(shares + share_tile)
        share = (share.to(tl.float32) * factor[:, None]).to(share.dtype)
        sums = tl.dot(share, values, sums)
        shares += BLOCK_K
        v += BLOCK_K * v_stride

    mean = sums / tl.load(total + batch * rows + tile * BLOCK_M + row)[:, None]
    first_row = first + tile * BLOCK_M
    out += (batch * M + first_row) * CHANNELS
    real = (row < M - first_row)[:, None] & (column < CHANNELS)[None, :]
    tl.store(out + row[:, None] * CHANNELS + column[None, :], mean.to(out.dtype.element_ty), mask=real)
