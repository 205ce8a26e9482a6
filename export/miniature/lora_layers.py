"""Low-rank pairs on a network's layers while they are trained: each weight becomes `W + up · down`."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LINEARS: Final = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out")
CONVOLUTIONS: Final = ("conv1", "conv2")


class LowRank(nn.Module):
    """The pair of one layer; alpha is its rank."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) * weight[0].numel() ** -0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The layer's weight with the pair in it; the difference is 0 before training."""
        return weight + (self.up @ self.down.flatten(1)).view_as(weight)


def attach(network: nn.Module, *, rank: int, conv_rank: int) -> dict[str, LowRank]:
    """Put a new pair on every attention's linear layers (`rank`) and every ResNet's convolutions (`conv_rank`)."""
    pairs = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(LINEARS):
            pairs[name] = LowRank(module.weight, rank)
        elif isinstance(module, nn.Conv2d) and name.endswith(CONVOLUTIONS):
            pairs[name] = LowRank(module.weight, conv_rank)
    for name, pair in pairs.items():
        parametrize.register_parametrization(network.get_submodule(name), "weight", pair)
    return pairs
