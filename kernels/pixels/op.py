"""The op: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, execute, runs_kernels
from .plan import plan_read_pixels
from .reference import read_pixels_ref


@torch.library.triton_op("pocketxl::read_pixels", mutates_args={})
def read_pixels(x: Tensor, padded: int) -> Tensor:
    """A picture with its channels last, in float16, and zeros behind them: what convolutions of few channels read.

    `x`: (b, c, h, w), float32. `padded`: channels of the outcome.

    Returns (b, h, w, padded), float16. What float16 cannot hold is infinite.

    Raises `UnsupportedShapeError`: padded is no multiple of 16, less than c or above 256, or a picture has 2^31 pixels.
    """
    if not runs_kernels(x):
        return read_pixels_ref(x, padded).half().contiguous()
    b, c, h, w = x.shape
    plan = plan_read_pixels(b=b, h=h, w=w, c=c, padded=padded, arch=architecture_of(x))
    return execute(plan, {"x": x.contiguous()})["out"]


@read_pixels.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, padded: int) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, h, w, padded), dtype=torch.float16)
