"""A prediction as one CUDA graph: what the GPU alone takes where the host cannot keep up."""

from collections.abc import Callable

from torch import Tensor

from pocketxl.kernels.timing import CudaGraphs

from .calls import Calls


def captured(calls: Calls, latents: Tensor) -> Callable[[Tensor, int], Tensor]:
    """The same as `calls`, which run for real now; latents and timestep are copied to where the graph reads them."""
    there, now = latents.clone(), calls.timestep(0).clone()
    replay = CudaGraphs().record([lambda: calls.at(there, now)])

    def replayed(latents: Tensor, step: int) -> Tensor:
        there.copy_(latents)
        now.copy_(calls.timestep(step))
        made = replay()
        result: Tensor = made[0]  # type: ignore[index]
        return result

    return replayed
