"""The truth that errors are told against: diffusers' network in float32, on the weights that all have.

These are halves, so they lie there as such, and are floats while their layer runs: that is exact, and half the memory.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .calls import Calls
from .cases import Case
from .inputs import inputs_of
from .networks import Network
from .systems import Ready, run_steps


def references(network: Network, cases: Iterable[Case], kept: Path | None = None) -> dict[str, Tensor]:
    """The result of every case by its name, on the host. Convolutions and products in whole float32, never TF32.

    `kept`: folder where a result is looked for first, and left for the next run.
    """
    found: dict[str, Tensor] = {}
    missing = []
    for case in cases:
        file = None if kept is None else kept / f"{case.name}.npy"
        if file is not None and file.exists():
            found[case.name] = torch.from_numpy(np.load(file, allow_pickle=False))
        else:
            missing.append((case, file))
    if not missing:
        return found
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module = network.module(torch.float16)
    for layer in module.modules():
        if any(parameter is not None for parameter in layer._parameters.values()):
            layer.register_forward_pre_hook(_to_floats)
            layer.register_forward_hook(_to_halves)
    with torch.no_grad():
        for case, file in missing:
            inputs = inputs_of(case, network)
            ready = Ready(latents=inputs.latents, predict=Calls(module, inputs, torch.float32))
            found[case.name] = run_steps(ready, case.steps).cpu()
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, found[case.name].numpy())
    return found


def _to_floats(layer: nn.Module, given: object) -> None:
    layer.float()


def _to_halves(layer: nn.Module, given: object, found: object) -> None:
    layer.half()


def relative_error(result: Tensor, expected: Tensor) -> float:
    """|result - expected| / |expected|, L2; what is not a number stays so."""
    return float((result - expected).norm() / expected.norm())
