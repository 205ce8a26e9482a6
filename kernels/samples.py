"""Random tensors for the inputs of a plan: what tuning and benchmarks run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .launch import Buffer, LaunchPlan

if TYPE_CHECKING:
    from torch import Tensor


def sample(name: str, buffer: Buffer, *, device: str = "cpu", seed: int = 0) -> Tensor:
    """One tensor: bytes over their whole range, scales such that products stay near one, everything else normal."""
    import torch

    random = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, buffer.dtype)
    if not dtype.is_floating_point:
        low, high = {torch.int8: (-127, 128), torch.uint8: (0, 256)}.get(dtype, (0, 2**15))
        return torch.randint(low, high, buffer.shape, generator=random, device=device, dtype=dtype)
    if "scale" in name:
        return torch.rand(buffer.shape, generator=random, device=device).mul(0.01).add(0.002).to(dtype)
    return torch.randn(buffer.shape, generator=random, device=device).to(dtype)


def samples(plan: LaunchPlan, *, device: str = "cpu", seed: int = 0) -> dict[str, Tensor]:
    """A tensor for each input of a plan, from seeds that follow `seed`.

    One that a launch reads at a stride is a slice of the columns of a wider tensor, as the op's caller has it.
    """
    strides = {name: value for launch in plan.launches for name, value in launch.arguments.items()}
    made = {}
    for i, (name, buffer) in enumerate(plan.inputs.items()):
        *lead, columns = buffer.shape
        stride = strides.get(f"{name}_stride")
        wide = stride if isinstance(stride, int) else columns
        whole = Buffer(shape=(*lead, wide), dtype=buffer.dtype)
        made[name] = sample(name, whole, device=device, seed=seed + i)[..., :columns]
    return made
