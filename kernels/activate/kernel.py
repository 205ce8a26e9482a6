"""Triton: an activation, element by element."""

# Triton reads these functions' source: names in capitals are compile-time constants.
# mypy: ignore-errors
import triton
import triton.language as tl

from ..half.kernel import activated


@triton.jit(do_not_specialize=["size"])
def activate_kernel(x, out, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK of `size` elements; see `activate`."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < size, other=0.0).to(tl.float32)
    tl.store(out + place, activated(value, ACTIVATION).to(out.dtype.element_ty), mask=place < size)
