"""Triton: scales from the largest magnitude, and rounding to 8 bits, per row or per picture.

A magnitude travels as the bits of a float32 without its sign: as integers these are ordered like the numbers, with
infinity and then NaN above all others. So one integer maximum finds the scale and lets no NaN through, which `tl.max`
on floats would drop.
"""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
# ruff: noqa: RUF005 - Triton does not unpack into tuples
import triton
import triton.language as tl

from ..activations import gelu

# Bits of 1e-30: the least magnitude that a scale is made from, so that rows of zeros divide by something.
LEAST: tl.constexpr = tl.constexpr(0x0DA24260)


@triton.jit
def magnitude(value):
    """Bits of `|value|`, float32, as int32."""
    return value.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def scale_of(bits, dtype: tl.constexpr):
    """Scale and its inverse from the largest magnitude; the scale is NaN where that is infinite or NaN."""
    LARGEST: tl.constexpr = 127.0 if dtype == tl.int8 else 448.0
    amax = tl.maximum(bits, LEAST).to(tl.float32, bitcast=True)
    amax = tl.where(amax < float("inf"), amax, float("nan"))
    return tl.div_rn(amax, tl.full(amax.shape, LARGEST, tl.float32)), LARGEST / amax


@triton.jit
def narrowed(value, dtype: tl.constexpr):
    """Float32, already divided by the scale, to 8 bits, ties to even."""
    LARGEST: tl.constexpr = 127.0 if dtype == tl.int8 else 448.0
    value = tl.minimum(tl.maximum(value, -LARGEST), LARGEST)
    return within_range(value, dtype)


@triton.jit
def within_range(value, dtype: tl.constexpr):
    """`narrowed` of what is no larger, but for a last bit, than the largest: divided by a scale that was made from it.

    What it gives for NaN or infinity is nothing: their scale is NaN.
    """
    if dtype == tl.int8:
        # 1.5 * 2^23: from there on float32 has no fraction, and the low byte is the integer, NaN or not.
        return (value + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)
    else:
        return value.to(dtype)


@triton.jit
def load_row(row, inside, C, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (rows, C) in PARTS pieces (rows, WIDTH), zero outside; every piece is asked for before any is used.

    Pieces whose width is a power of two cover 640, 1280 or 768 channels without idle lanes.
    """
    column = tl.arange(0, WIDTH)[None, :]
    parts = ()
    for part in tl.static_range(PARTS):
        within = inside
        if PARTS * WIDTH != C:
            within = inside & (part * WIDTH + column < C)
        parts = parts + (tl.load(row + part * WIDTH + column, mask=within, other=0.0),)
    return parts


@triton.jit
def store_row(parts, row, inside, C, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """The other way: float32 pieces, rounded to what `row` (rows, C) points to."""
    column = tl.arange(0, WIDTH)[None, :]
    for part in tl.static_range(PARTS):
        within = inside
        if PARTS * WIDTH != C:
            within = inside & (part * WIDTH + column < C)
        tl.store(row + part * WIDTH + column, parts[part].to(row.dtype.element_ty), mask=within)


@triton.jit
def store_quantized(parts, q, scale, rows, inside, C, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Scale of each row of float32 pieces, and the row in 8 bits."""
    top = magnitude(parts[0])
    for part in tl.static_range(1, PARTS):
        top = tl.maximum(top, magnitude(parts[part]))
    of_row, inverse = scale_of(tl.max(top, 1), q.dtype.element_ty)
    tl.store(scale + rows[:, None], of_row[:, None], mask=inside)
    column = tl.arange(0, WIDTH)[None, :]
    row = q + rows.to(tl.int64)[:, None] * C
    for part in tl.static_range(PARTS):
        within = inside
        if PARTS * WIDTH != C:
            within = inside & (part * WIDTH + column < C)
        value = within_range(parts[part] * inverse[:, None], q.dtype.element_ty)
        tl.store(row + part * WIDTH + column, value, mask=within)


@triton.jit(do_not_specialize=["M"])
def quantize_per_token_kernel(
    x, q, scale, M, C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr
):
    """Some rows of `x (M, C)`; see `quantize_per_token`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < M)[:, None]
    loaded = load_row(x + rows.to(tl.int64)[:, None] * C, inside, C, PARTS, WIDTH)
    parts = ()
    for part in tl.static_range(PARTS):
        parts = parts + (loaded[part].to(tl.float32),)
    store_quantized(parts, q, scale, rows, inside, C, PARTS, WIDTH)


@triton.jit
def gated(x, rows, inside, C, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """`value * gelu(gate)` of rows of `x (M, 2C)`, values then gates, in float32 pieces."""
    row = x + rows.to(tl.int64)[:, None] * (2 * C)
    values = load_row(row, inside, C, PARTS, WIDTH)
    gates = load_row(row + C, inside, C, PARTS, WIDTH)
    parts = ()
    for part in tl.static_range(PARTS):
        gate = gates[part].to(tl.float32)
        value = values[part].to(tl.float32) * gelu(gate)
        parts = parts + (value,)
    return parts


@triton.jit(do_not_specialize=["M"])
def geglu_quantize_kernel(
    x, q, scale, M, C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr
):
    """Some rows of `x (M, 2C)`; see `geglu_quantize`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < M)[:, None]
    store_quantized(gated(x, rows, inside, C, PARTS, WIDTH), q, scale, rows, inside, C, PARTS, WIDTH)


@triton.jit(do_not_specialize=["M"])
def geglu_kernel(x, inverse, out, M, C: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Some rows of `x (M, 2C)`; see `geglu`. With `inverse` times that of each column, in 8 bits."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (rows < M)[:, None]
    row = out + rows.to(tl.int64)[:, None] * C
    found = gated(x, rows, inside, C, PARTS, WIDTH)
    if inverse is None:
        store_row(found, row, inside, C, PARTS, WIDTH)
    else:
        factors = load_row(inverse + tl.zeros((ROWS, 1), dtype=tl.int32), inside, C, PARTS, WIDTH)
        parts = ()
        for part in tl.static_range(PARTS):
            parts = parts + (narrowed(found[part] * factors[part], tl.int8),)
        store_row(parts, row, inside, C, PARTS, WIDTH)


@triton.jit
def load_chunk(x, first, size, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """STEPS blocks from `first` of an array of `size`, zero outside, all asked for before any is used."""
    blocks = ()
    for step in tl.static_range(STEPS):
        place = first + step * BLOCK + tl.arange(0, BLOCK)
        blocks = blocks + (tl.load(x + place, mask=place < size, other=0.0),)
    return blocks


@triton.jit(do_not_specialize=["pixels"])
def image_amax_kernel(x, peak, pixels, C, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Largest magnitude in one chunk of one picture, `peak (B, chunks)`; infinity and NaN pass."""
    size = pixels * C
    chunk, picture = tl.program_id(0), tl.program_id(1)
    blocks = load_chunk(x + picture.to(tl.int64) * size, chunk * (STEPS * BLOCK), size, STEPS, BLOCK)
    top = tl.zeros((BLOCK,), tl.int32)
    for step in tl.static_range(STEPS):
        top = tl.maximum(top, magnitude(blocks[step].to(tl.float32)))
    tl.store(peak + picture * tl.num_programs(0) + chunk, tl.max(top, 0).to(tl.float32, bitcast=True))


@triton.jit
def picture_scale(peak, picture, count, dtype: tl.constexpr, PEAKS: tl.constexpr):
    """Scale and inverse of a picture from the magnitudes `peak (B, count)` of its pieces."""
    top = tl.zeros((PEAKS,), tl.int32)
    for first in range(0, count, PEAKS):
        place = first + tl.arange(0, PEAKS)
        top = tl.maximum(top, magnitude(tl.load(peak + picture * count + place, mask=place < count, other=0.0)))
    return scale_of(tl.max(top, 0), dtype)


@triton.jit(do_not_specialize=["pixels"])
def quantize_per_image_kernel(
    x, peak, q, scale, pixels, C, STEPS: tl.constexpr, BLOCK: tl.constexpr, PEAKS: tl.constexpr
):
    """One chunk of one picture, with the scale of the whole picture; see `quantize_per_image`."""
    size = pixels * C
    picture = tl.program_id(1)
    # From the end backwards: what the kernel before read last is still in the L2 cache.
    chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    first = chunk * (STEPS * BLOCK)
    begin = picture.to(tl.int64) * size
    blocks = load_chunk(x + begin, first, size, STEPS, BLOCK)
    of_picture, inverse = picture_scale(peak, picture, tl.num_programs(0), q.dtype.element_ty, PEAKS)
    if chunk == 0:
        tl.store(scale + picture, of_picture)
    for step in tl.static_range(STEPS):
        place = first + step * BLOCK + tl.arange(0, BLOCK)
        value = within_range(blocks[step].to(tl.float32) * inverse, q.dtype.element_ty)
        tl.store(q + begin + place, value, mask=place < size)
