"""The op: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, execute, runs_kernels
from .plan import plan_activate
from .reference import activate_ref


@torch.library.triton_op("pocketxl::activate", mutates_args={})
def activate(x: Tensor, activation: str) -> Tensor:
    """An activation, float32 between, rounded once: for a linear layer whose product is in 8 bits or has a pair added.

    `x`: (…, n), float16. `activation`: gelu (exact, by erf), quick_gelu (`x * sigmoid(1.702 x)`) or silu.

    Returns (…, n), float16.

    Raises `UnsupportedShapeError`: there is no such activation, or 2^31 elements.
    """
    if not runs_kernels(x):
        return activate_ref(x, activation).to(x.dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_activate(m=rows.shape[0], n=rows.shape[1], activation=activation, arch=architecture_of(x))
    return execute(plan, {"x": rows})["out"].reshape(x.shape)


@activate.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, activation: str) -> Tensor:
    return torch.empty_like(x)
