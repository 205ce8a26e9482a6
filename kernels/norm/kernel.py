"""Triton: LayerNorm and GroupNorm + SiLU that write 8 bits, or 16."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
# ruff: noqa: RUF005 - Triton does not unpack into tuples
import triton
import triton.language as tl

from ..activations import sigmoid
from ..quantize.kernel import load_row, magnitude, narrowed, picture_scale, store_quantized, store_row


@triton.jit
def normalized(
    parts, sums, weight, bias, eps,
    C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """LayerNorm of rows in float32 pieces, zero outside, whose sum over pieces is `sums` (ROWS, WIDTH)."""
    column = tl.arange(0, WIDTH)[None, :]
    # Divided exactly: an approximate mean of 60000 is off by 2^-7, against which eps does not hold a constant token.
    mean = tl.div_rn(tl.sum(sums, 1), tl.full((ROWS,), C, tl.float32))
    squares = tl.zeros((ROWS, WIDTH), tl.float32)
    centred = ()
    for part in tl.static_range(PARTS):
        value = parts[part] - mean[:, None]
        if PARTS * WIDTH != C:
            value = tl.where(part * WIDTH + column < C, value, 0.0)
        squares += value * value
        centred = centred + (value,)
    variance = tl.sum(squares, 1) / C
    # An infinite variance would make a clean row of biases.
    factor = tl.where(variance < float("inf"), tl.rsqrt(variance + eps), float("nan"))[:, None]
    # Asked for once per row, so that every thread loads its own 16 bytes instead of passing them through shared memory.
    every = tl.full((ROWS, 1), True, tl.int1)
    same = tl.zeros((ROWS, 1), tl.int32)
    gains = load_row(weight + same, every, C, PARTS, WIDTH)
    shifts = load_row(bias + same, every, C, PARTS, WIDTH)
    normal = ()
    for part in tl.static_range(PARTS):
        value = centred[part] * factor * gains[part].to(tl.float32) + shifts[part].to(tl.float32)
        normal = normal + (value,)
    return normal


@triton.jit(do_not_specialize=["M"])
def layer_norm_kernel(
    x, weight, bias, out, M, eps, C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr
):
    """Some rows of `x (M, C)`; see `layer_norm`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < M)[:, None]
    begin = rows.to(tl.int64)[:, None] * C
    loaded = load_row(x + begin, inside, C, PARTS, WIDTH)
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    parts = ()
    for part in tl.static_range(PARTS):
        value = loaded[part].to(tl.float32)
        sums += value
        parts = parts + (value,)
    normal = normalized(parts, sums, weight, bias, eps, C, ROWS, PARTS, WIDTH)
    store_row(normal, out + begin, inside, C, PARTS, WIDTH)


@triton.jit(do_not_specialize=["M"])
def layer_norm_quantize_kernel(
    x, residual, weight, bias, total, q, scale, M, eps,
    C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Some rows of `x (M, C)`, or of `total` = x + residual; see `layer_norm_quantize`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < M)[:, None]
    begin = rows.to(tl.int64)[:, None] * C
    loaded = load_row(x + begin, inside, C, PARTS, WIDTH)
    if residual is not None:
        added = load_row(residual + begin, inside, C, PARTS, WIDTH)
    column = tl.arange(0, WIDTH)[None, :]
    parts = ()
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    for part in tl.static_range(PARTS):
        value = loaded[part].to(tl.float32)
        if residual is not None:
            # What is normalized is the sum as it is stored, rounded: what a later layer will read.
            stored = (value + added[part].to(tl.float32)).to(total.dtype.element_ty)
            within = inside
            if PARTS * WIDTH != C:
                within = inside & (part * WIDTH + column < C)
            tl.store(total + begin + part * WIDTH + column, stored, mask=within)
            value = stored.to(tl.float32)
        sums += value
        parts = parts + (value,)
    normal = normalized(parts, sums, weight, bias, eps, C, ROWS, PARTS, WIDTH)
    store_quantized(normal, q, scale, rows, inside, C, PARTS, WIDTH)


@triton.jit
def block_of_channels(x, x2, picture, pixels, C, C1, WIDTH: tl.constexpr):
    """Where this program's channels of a picture begin, and elements from one pixel to the next.

    C channels are those of `x`, or C1 of `x` and then those of `x2`; a block lies in one of both.
    """
    channel = tl.program_id(0) * WIDTH
    if x2 is None:
        return x + picture.to(tl.int64) * pixels * C + channel, C
    else:
        in_first = channel < C1
        stride = tl.where(in_first, C1, C - C1)
        offset = picture.to(tl.int64) * pixels * stride + tl.where(in_first, channel, channel - C1)
        return tl.where(in_first, x, x2) + offset, stride


@triton.jit
def load_pixels(x, first, pixels, stride, STEPS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """STEPS tiles (HEIGHT pixels, WIDTH channels), all asked for before any is used; the last pixel repeats."""
    begin = x + first.to(tl.int64) * stride
    column = tl.arange(0, WIDTH)[None, :]
    tiles = ()
    for step in tl.static_range(STEPS):
        row = tl.minimum(step * HEIGHT + tl.arange(0, HEIGHT), pixels - 1 - first)
        tiles = tiles + (tl.load(begin + row[:, None] * stride + column),)
    return tiles


@triton.jit(do_not_specialize=["pixels"])
def group_norm_statistics_kernel(
    x, x2, mean, squares, low, high, pixels, C, C1,
    STEPS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of one chunk of pixels and WIDTH channels, per channel: mean, sum of squared deviations, least and greatest.

    Sums are of the difference to the chunk's first pixel. One of n samples is never further from their mean than
    sqrt(n - 1) standard deviations (Samuelson's inequality), so what the subtraction of squares loses is bounded by the
    chunk's length whatever the data; x**2 has no such bound.
    """
    CHUNK: tl.constexpr = STEPS * HEIGHT
    chunk, picture = tl.program_id(1), tl.program_id(2)
    first = chunk * CHUNK
    begin, stride = block_of_channels(x, x2, picture, pixels, C, C1, WIDTH)
    tiles = load_pixels(begin, first, pixels, stride, STEPS, HEIGHT, WIDTH)
    origin = tl.load(begin + first.to(tl.int64) * stride + tl.arange(0, WIDTH)).to(tl.float32)
    ones = tl.zeros((HEIGHT, WIDTH), tl.float32)
    twos = tl.zeros((HEIGHT, WIDTH), tl.float32)
    least = tiles[0].to(tl.float32)
    most = least
    for step in tl.static_range(STEPS):
        value = tiles[step].to(tl.float32)
        row = first + step * HEIGHT + tl.arange(0, HEIGHT)
        offset = tl.where((row < pixels)[:, None], value - origin[None, :], 0.0)
        ones += offset
        twos += offset * offset
        least = tl.minimum(least, value)
        most = tl.maximum(most, value)
    count = tl.minimum(pixels - first, CHUNK).to(tl.float32)
    one = tl.sum(ones, 0)
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    place = (picture * tl.num_programs(1) + chunk).to(tl.int64) * C + channels
    tl.store(mean + place, origin + one / count)
    # NaN must stay: tl.maximum would drop it.
    spread = tl.sum(twos, 0) - one * one / count
    tl.store(squares + place, tl.where(spread < 0.0, 0.0, spread))
    if low is not None:
        tl.store(low + place, tl.min(least, 0).to(low.dtype.element_ty))
        tl.store(high + place, tl.max(most, 0).to(high.dtype.element_ty))


@triton.jit
def silu(value):
    """`value * sigmoid(value)`, float32."""
    return value * sigmoid(value)


@triton.jit(do_not_specialize=["pixels", "chunks", "chunk", "group"])
def group_norm_merge_kernel(
    mean, squares, low, high, weight, bias, factor, offset, peak, pixels, chunks, chunk, C, group, eps,
    LANES: tl.constexpr, CHUNKS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """One group of one picture: `y = factor * x + offset` of its channels, and the largest magnitude to come.

    The weighted mean of the chunks' means, then their squared deviations around it (Chan, Golub, LeVeque 1979).
    """
    index, picture = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    channels = index * group + lane
    in_group = lane < group
    begin = picture.to(tl.int64) * chunks * C
    origin = tl.load(mean + begin + index * group)
    total = tl.zeros((CHUNKS, LANES), tl.float32)
    least = tl.full((CHUNKS, LANES), float("inf"), tl.float32)
    most = tl.full((CHUNKS, LANES), float("-inf"), tl.float32)
    for first in range(0, chunks, CHUNKS):
        row = first + tl.arange(0, CHUNKS)
        inside = (row < chunks)[:, None] & in_group[None, :]
        count = tl.minimum(pixels - row * chunk, chunk).to(tl.float32)[:, None]
        place = begin + row[:, None] * C + channels[None, :]
        part = tl.load(mean + place, mask=inside, other=0.0) - origin
        total += tl.where(inside, part * count, 0.0)
        if peak is not None:
            least = tl.minimum(least, tl.load(low + place, mask=inside, other=float("inf")).to(tl.float32))
            most = tl.maximum(most, tl.load(high + place, mask=inside, other=float("-inf")).to(tl.float32))
    size = pixels.to(tl.float32) * group
    centre = origin + tl.sum(tl.sum(total, 1), 0) / size
    total = tl.zeros((CHUNKS, LANES), tl.float32)
    for first in range(0, chunks, CHUNKS):
        row = first + tl.arange(0, CHUNKS)
        inside = (row < chunks)[:, None] & in_group[None, :]
        count = tl.minimum(pixels - row * chunk, chunk).to(tl.float32)[:, None]
        place = begin + row[:, None] * C + channels[None, :]
        part = tl.load(mean + place, mask=inside, other=0.0) - centre
        inner = tl.load(squares + place, mask=inside, other=0.0)
        total += tl.where(inside, inner + part * part * count, 0.0)
    variance = tl.sum(tl.sum(total, 1), 0) / size
    # An infinite variance would make a clean picture of biases.
    inverse = tl.where(variance < float("inf"), tl.rsqrt(variance + eps), float("nan"))
    a = tl.load(weight + channels, mask=in_group, other=0.0).to(tl.float32) * inverse
    b = tl.load(bias + channels, mask=in_group, other=0.0).to(tl.float32) - centre * a
    tl.store(factor + picture * C + channels, a, mask=in_group)
    tl.store(offset + picture * C + channels, b, mask=in_group)
    if peak is not None:
        # y is monotone in x, so a channel's extremes are those of its extremes; NaN comes in through a and b.
        one = a * tl.where(in_group, tl.min(least, 0), 0.0) + b
        two = a * tl.where(in_group, tl.max(most, 0), 0.0) + b
        if SILU:
            top = tl.maximum(magnitude(silu(one)), magnitude(silu(two)))
            # SiLU turns at -1.2784645, where it is -0.2784645.
            turns = (tl.minimum(one, two) < -1.2784645) & (tl.maximum(one, two) > -1.2784645)
            trough = tl.where(turns, 0.27846455, 0.0)
            top = tl.maximum(top, magnitude(trough))
        else:
            top = tl.maximum(magnitude(one), magnitude(two))
        top = tl.max(tl.where(in_group, top, 0), 0)
        tl.store(peak + picture * tl.num_programs(0) + index, top.to(tl.float32, bitcast=True))


@triton.jit(do_not_specialize=["pixels"])
def group_norm_apply_kernel(
    x, x2, factor, offset, peak, out, scale, pixels, C, C1, groups,
    PEAKS: tl.constexpr, STEPS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Normalize one chunk of pixels and WIDTH channels, and write it, in 8 bits if there is a `scale` to write."""
    picture = tl.program_id(2)
    # From the end backwards: what the statistics read last is still in the L2 cache.
    chunk = tl.num_programs(1) - 1 - tl.program_id(1)
    first = chunk * (STEPS * HEIGHT)
    begin, stride = block_of_channels(x, x2, picture, pixels, C, C1, WIDTH)
    tiles = load_pixels(begin, first, pixels, stride, STEPS, HEIGHT, WIDTH)
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    a = tl.load(factor + picture * C + channels)[None, :]
    b = tl.load(offset + picture * C + channels)[None, :]
    if scale is not None:
        of_picture, inverse = picture_scale(peak, picture, groups, out.dtype.element_ty, PEAKS)
        if (chunk == 0) & (tl.program_id(0) == 0):
            tl.store(scale + picture, of_picture)
    row_begin = out + (picture.to(tl.int64) * pixels + first) * C
    for step in tl.static_range(STEPS):
        value = tiles[step].to(tl.float32) * a + b
        if SILU:
            value = silu(value)
        if scale is not None:
            stored = narrowed(value * inverse, out.dtype.element_ty)
        else:
            stored = value.to(out.dtype.element_ty)
        row = step * HEIGHT + tl.arange(0, HEIGHT)
        tl.store(row_begin + row[:, None] * C + channels[None, :], stored, mask=(first + row < pixels)[:, None])
