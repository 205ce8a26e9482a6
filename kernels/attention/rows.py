"""Tokens as kernels of attention read them: rows at a stride, so that slices of a wider tensor need no copy."""

from torch import Tensor


def rows_in_place(x: Tensor) -> tuple[Tensor, int]:
    """The tensor and its row stride where a kernel can read it in place; else a contiguous copy and the copy's."""
    batch, tokens, channels = x.shape
    if not x.is_contiguous():
        stride = x.stride(1)
        in_place = (
            x.stride(2) == 1
            and stride % 16 == 0
            and stride >= channels
            and (batch == 1 or x.stride(0) == tokens * stride)
            and x.storage_offset() % 8 == 0
        )
        if in_place:
            return x, stride
    return x.contiguous(), channels
