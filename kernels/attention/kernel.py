"""Triton: attention for head dimension 64, causal or whole, in 16 bits or with 8-bit scores.

Tokens stay where the linears put them: a head is 64 neighbouring columns of a row, found by a row stride.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..quantize.kernel import narrowed

HEAD_DIM = tl.constexpr(64)
# Scores are in base 2: 1/sqrt(64) * log2(e).
SCORE_SCALE = tl.constexpr(0.125 * 1.4426950408889634)
# Adding and subtracting 1.5 * 2**23 rounds a float32 of at most 2**22 to the nearest integer, half to even.
TO_INTEGER = tl.constexpr(12582912.0)
ZERO_BITS = tl.constexpr(0x4B400000)  # of that number
# Sums in float16 are of shares of at most 2**-4: 64 of them times values of up to 16376 stay within its range. What
# small shares lose by that begins at 2**-10 of the largest, and is 2**-21 of the largest at most.
HALF_SHARES = tl.constexpr(4.0)
# The least amplitude that is quantized: scales are never 0, and the product of two of them is no subnormal number.
LEAST = tl.constexpr(1e-15)


@triton.jit
def take_in(weight, peak, scores):
    """One step of the online softmax (Milakov and Gimelshein; FlashAttention): takes in the scores of a block of keys.

    Returns each key's share, how much all that came before shrinks, and the new weight and peak (a score). A NaN among
    the scores reaches its row through `weight`, whatever the maximum makes of it.

    What is subtracted is a score, before any is scaled: of `score * scale - peak * scale` a GPU rounds one product only
    (it contracts), and the best key would not be at 0 but at a rounding of its score, 2^11 where that is 1e11.
    """
    higher = tl.maximum(peak, tl.max(scores, 1))
    shares = tl.exp2((scores - higher[:, None]) * SCORE_SCALE)
    shrink = tl.exp2((peak - higher) * SCORE_SCALE)
    return shares, shrink, weight * shrink + tl.sum(shares, 1), higher


@triton.jit
def take_in_scaled(weight, peak, scores, scale, HALVES: tl.constexpr):
    """`take_in` where a block has a `scale` of its own (of each row, above 0); `peak` is a score times its scale.

    `scores` are integers above 1.5 * 2**23, which no difference of two shows. HALVES: shares are smaller by 2**4, and
    the weight, their sum, with them.
    """
    top = tl.max(scores, 1)
    scaled = (top - TO_INTEGER) * scale
    # How far this block's best key is below the peak; 0, not a rounding of 0, where it is the peak.
    if HALVES:
        # The peak counts as that much higher, so that every share is that much smaller.
        below = tl.minimum(scaled - peak, -HALF_SHARES)
        higher = tl.maximum(peak, scaled + HALF_SHARES)
    else:
        below = tl.minimum(scaled - peak, 0.0)
        higher = tl.maximum(peak, scaled)
    shares = tl.exp2((scores - top[:, None]) * scale[:, None] + below[:, None])
    shrink = tl.exp2(peak - higher)
    return shares, shrink, weight * shrink + tl.sum(shares, 1), higher


@triton.jit
def add_values(sums, shares, shrink, values, ACCUMULATE_HALF: tl.constexpr):
    """The other half of the step: the block's values by their shares."""
    sums = sums * shrink[:, None]
    shares = shares.to(values.dtype)
    if ACCUMULATE_HALF:
        return sums + tl.dot(shares, values, out_dtype=tl.float16).to(tl.float32)
    else:
        return tl.dot(shares, values, sums)


@triton.jit
def store_rows(out, inverse, sums, weight, batch, head, M, channels, BLOCK_M: tl.constexpr):
    """Write the weighted means of one block of queries; with `inverse` times that of each channel, in 8 bits."""
    first = tl.program_id(0) * BLOCK_M
    row = tl.arange(0, BLOCK_M)
    out += (batch * M + first) * channels + head * HEAD_DIM
    places = row[:, None] * channels + tl.arange(0, HEAD_DIM)[None, :]
    mean = sums / weight[:, None]
    if inverse is None:
        mean = mean.to(out.dtype.element_ty)
    else:
        mean = narrowed(mean * tl.load(inverse + head * HEAD_DIM + tl.arange(0, HEAD_DIM))[None, :], tl.int8)
    tl.store(out + places, mean, mask=(row < M - first)[:, None])


@triton.jit(do_not_specialize=["M", "N"])
def attention_kernel(
    q, k, v, inverse, out, M, N, channels, q_stride, k_stride, v_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TAIL: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head; see `attention`. TAIL: keys are left that fill no block."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    first_row = tl.program_id(0) * BLOCK_M
    row = tl.arange(0, BLOCK_M)
    depth = tl.arange(0, HEAD_DIM)
    q += (batch * M + first_row) * q_stride + head * HEAD_DIM
    places = row[:, None] * q_stride + depth[None, :]
    queries = tl.load(q + places, mask=(row < M - first_row)[:, None], other=0.0)
    sums = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
    weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)

    k += batch * N * k_stride + head * HEAD_DIM
    v += batch * N * v_stride + head * HEAD_DIM
    inside = tl.arange(0, BLOCK_N)
    k_tile = inside[None, :] * k_stride + depth[:, None]
    v_tile = inside[:, None] * v_stride + depth[None, :]
    full = N // BLOCK_N * BLOCK_N
    for start in range(0, full, BLOCK_N):
        scores = tl.dot(queries, tl.load(k + k_tile))
        if CAUSAL:
            # Every row sees the first key, so from the first block on its peak is a number.
            scores = tl.where(start + inside[None, :] <= first_row + row[:, None], scores, float("-inf"))
        shares, shrink, weight, peak = take_in(weight, peak, scores)
        sums = add_values(sums, shares, shrink, tl.load(v + v_tile), False)
        k += BLOCK_N * k_stride
        v += BLOCK_N * v_stride
    if TAIL:
        real = inside < N - full
        scores = tl.dot(queries, tl.load(k + k_tile, mask=real[None, :], other=0.0))
        seen = real[None, :]
        if CAUSAL:
            seen = seen & (full + inside[None, :] <= first_row + row[:, None])
        shares, shrink, weight, peak = take_in(weight, peak, tl.where(seen, scores, float("-inf")))
        sums = add_values(sums, shares, shrink, tl.load(v + v_tile, mask=real[:, None], other=0.0), False)
    store_rows(out, inverse, sums, weight, batch, head, M, channels, BLOCK_M)


@triton.jit
def to_int8(x, largest):
    """Round `x * (127 / largest)` to int8, half to even. A NaN becomes any integer; its scale says so."""
    x = tl.minimum(tl.maximum(x * tl.div_rn(127.0, largest), -127.0), 127.0)
    return ((x + TO_INTEGER) - TO_INTEGER).to(tl.int8)


@triton.jit(do_not_specialize=["N"])
def key_sums_kernel(k, partial, N, channels, k_stride, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of one head's keys over SPAN tokens, float32; always in the same order, so the same every time."""
    span = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    depth = tl.program_id(1) * HEAD_DIM + tl.arange(0, HEAD_DIM)
    k += batch * N * k_stride
    total = tl.zeros((BLOCK, HEAD_DIM), dtype=tl.float32)
    for start in range(0, SPAN, BLOCK):
        tokens = span * SPAN + start + tl.arange(0, BLOCK)
        places = tokens.to(tl.int64)[:, None] * k_stride + depth[None, :]
        total += tl.load(k + places, mask=(tokens < N)[:, None], other=0.0).to(tl.float32)
    row = batch * tl.num_programs(0) + span
    tl.store(partial + row * channels + depth, tl.sum(total, 0))


@triton.jit(do_not_specialize=["N", "spans"])
def quantize_keys_kernel(
    k, partial, keys, key_scale, N, spans, channels, k_stride,
    KEY_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Int8 of one block of one head's keys less their mean over all tokens; missing tokens of the last block become 0.

    `keys` is (batch, head, blocks * KEY_BLOCK, 64), `key_scale` (batch, head, blocks): the block's largest magnitude
    over 127, and NaN where a key or the mean is not finite.
    """
    block = tl.program_id(0)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    depth = tl.arange(0, HEAD_DIM)
    total = tl.zeros((BLOCK, HEAD_DIM), dtype=tl.float32)
    for start in range(0, spans, BLOCK):
        span = start + tl.arange(0, BLOCK)
        places = (batch * spans + span)[:, None] * channels + head * HEAD_DIM + depth[None, :]
        total += tl.load(partial + places, mask=(span < spans)[:, None], other=0.0)
    mean = tl.div_rn(tl.sum(total, 0), N.to(tl.float32))
    tokens = block * KEY_BLOCK + tl.arange(0, KEY_BLOCK)
    real = (tokens < N)[:, None]
    places = (batch * N + tokens)[:, None] * k_stride + head * HEAD_DIM + depth[None, :]
    x = tl.load(k + places, mask=real, other=0.0).to(tl.float32)
    x = tl.where(real, x - mean[None, :], 0.0)
    poison = tl.sum(tl.sum(x * 0.0, 1), 0)  # NaN for NaN and infinities, which the maximum may lose
    largest = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), LEAST)
    place = (batch * tl.num_programs(1) + head) * tl.num_programs(0) + block
    tl.store(key_scale + place, tl.div_rn(largest, 127.0) + poison)
    inside = tl.arange(0, KEY_BLOCK)[:, None] * HEAD_DIM + depth[None, :]
    tl.store(keys + place * (KEY_BLOCK * HEAD_DIM) + inside, to_int8(x, largest))


@triton.jit(do_not_specialize=["M", "N"])
def attention_int8_kernel(
    q, keys, key_scale, v, inverse, out, M, N, channels, q_stride, v_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TAIL: tl.constexpr,
    KEY_BLOCK: tl.constexpr, ACCUMULATE_HALF: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head, quantized here for each token; see `attention_int8`.

    `keys` and `key_scale` are those of `quantize_keys_kernel`, and BLOCK_N divides its KEY_BLOCK.
    """
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    first_row = tl.program_id(0) * BLOCK_M
    row = tl.arange(0, BLOCK_M)
    depth = tl.arange(0, HEAD_DIM)
    q += (batch * M + first_row) * q_stride + head * HEAD_DIM
    places = row[:, None] * q_stride + depth[None, :]
    x = tl.load(q + places, mask=(row < M - first_row)[:, None], other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(x), 1), LEAST)
    queries = to_int8(x, largest[:, None])
    q_scale = (tl.div_rn(largest, 127.0) + tl.sum(x * 0.0, 1)) * SCORE_SCALE
    sums = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
    weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)

    first = (batch * tl.num_programs(1) + head) * tl.cdiv(N, KEY_BLOCK)
    inside = tl.arange(0, BLOCK_N)
    keys += first * (KEY_BLOCK * HEAD_DIM)
    key_scale += first
    v += batch * N * v_stride + head * HEAD_DIM
    k_tile = inside[None, :] * HEAD_DIM + depth[:, None]
    v_tile = inside[:, None] * v_stride + depth[None, :]
    full = N // BLOCK_N * BLOCK_N
    # Sums that begin at the bits of 1.5 * 2**23 are that float32 plus the score, at most 127 * 127 * 64: no conversion.
    zero = tl.full((BLOCK_M, BLOCK_N), ZERO_BITS, tl.int32)
    for start in range(0, full, BLOCK_N):
        scores = tl.dot(queries, tl.load(keys + k_tile), zero, out_dtype=tl.int32).to(tl.float32, bitcast=True)
        scale = q_scale * tl.load(key_scale + start // KEY_BLOCK)
        shares, shrink, weight, peak = take_in_scaled(weight, peak, scores, scale, ACCUMULATE_HALF)
        sums = add_values(sums, shares, shrink, tl.load(v + v_tile), ACCUMULATE_HALF)
        keys += BLOCK_N * HEAD_DIM
        v += BLOCK_N * v_stride
    if TAIL:
        real = inside < N - full
        # Blocks of keys are stored whole, with zeros behind the last key.
        scores = tl.dot(queries, tl.load(keys + k_tile), zero, out_dtype=tl.int32).to(tl.float32, bitcast=True)
        scores = tl.where(real[None, :], scores, float("-inf"))
        scale = q_scale * tl.load(key_scale + full // KEY_BLOCK)
        shares, shrink, weight, peak = take_in_scaled(weight, peak, scores, scale, ACCUMULATE_HALF)
        values = tl.load(v + v_tile, mask=real[:, None], other=0.0)
        sums = add_values(sums, shares, shrink, values, ACCUMULATE_HALF)
    store_rows(out, inverse, sums, weight, batch, head, M, channels, BLOCK_M)
