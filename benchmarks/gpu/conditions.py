"""What our U-Net takes in place of prompt and timestep: computed with the peer's own weights, once for a case."""

import torch
from torch import Tensor

from pocketxl.engine.models.conditioner import Conditioner

from .inputs import Inputs
from .networks import Network


def conditions(network: Network, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
    """Time vectors `[steps, batch, sum(resnet_widths)]`, and keys and values in running order; float32, on the device.

    That the conditioner with these weights is diffusers' own is the claim of tests/benchmarks/gpu.
    """
    with torch.device("meta"):
        module = Conditioner(network.architecture)
    state = {name: network.weights.made(name).float() for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    with torch.no_grad():
        vectors, *key_values = module(
            inputs.prompt_embeds, inputs.pooled_prompt_embeds, inputs.time_ids, inputs.timesteps
        )
    return vectors, key_values
