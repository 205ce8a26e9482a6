"""Random weights that ours and the peers have alike: the same numbers for a name, whoever asks, and no file."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..random_checkpoint import deviation

SPREAD = 0.05
"""Of norms around one and biases around zero: an addition that is left out must show."""


@dataclass(frozen=True, kw_only=True)
class RandomWeights:
    """A source of weights as `export.graph.master.attach` takes one. `shapes`: by state-dict name.

    Layers keep the variance of what they are given and residual branches add little (see `random_checkpoint`), so that
    float16 holds every activation, the VAE's too; those of the public VAE do not fit it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    device: str

    def made(self, name: str) -> Tensor:
        """The tensor of that name in float16, on the device that draws it."""
        shape = self.shapes[name]
        random = torch.Generator(self.device).manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(shape, generator=random, device=self.device)
        if len(shape) > 1:
            values *= deviation(name, shape)
        else:
            values = values * SPREAD + (1.0 if name.endswith(".weight") else 0.0)  # only norms have such weights
        return values.half()

    def tensor(self, name: str) -> Tensor:
        """The same on the host."""
        return self.made(name).cpu()
