"""Triton: a picture's planes into pixels."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["pixels"])
def read_pixels_kernel(x, out, pixels, C: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK pixels of one picture; see `read_pixels`. WIDTH: PADDED, up to a power of two."""
    picture = tl.program_id(1).to(tl.int64)
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    inside = place < pixels
    value = tl.load(x + (picture * C + channel) * pixels + place, mask=inside & (channel < C), other=0.0)
    pixel = out + (picture * pixels + place) * PADDED + channel
    tl.store(pixel, value.to(out.dtype.element_ty), mask=inside & (channel < PADDED))
