"""The truth that errors are told against: diffusers' network in float32, on the weights that all have."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .calls import Calls
from .cases import Case
from .inputs import inputs_of
from .networks import Network
from .systems import Ready, run_steps


def references(network: Network, cases: Iterable[Case]) -> dict[str, Tensor]:
    """The result of every case by its name, on the host. Convolutions and products in whole float32, never TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module, found = network.module(torch.float32), {}
    with torch.no_grad():
        for case in cases:
            inputs = inputs_of(case, network)
            ready = Ready(latents=inputs.latents, predict=Calls(module, inputs, torch.float32))
            found[case.name] = run_steps(ready, case.steps).cpu()
    return found


def relative_error(result: Tensor, expected: Tensor) -> float:
    """|result - expected| / |expected|, L2; what is not a number stays so."""
    return float((result - expected).norm() / expected.norm())
