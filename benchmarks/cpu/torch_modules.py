"""diffusers in torch as it is, in float32 or bfloat16, and with sdnq's int8 layers."""

from dataclasses import dataclass

import numpy as np
import torch

from .inputs import Feeds
from .job import Model, Network
from .modules import module_of, tensors
from .systems import Call, has_bfloat16


@dataclass(frozen=True, kw_only=True)
class TorchModules:
    """Eager modules; weights of convolutions lie channels last, as diffusers advises."""

    model: Model
    dtype: str = "float32"
    change: str | None = None
    """`sdnq`: int8 weights per output channel and int8 inputs per token, in the linear layers of U-Nets."""

    @property
    def text_dtype(self) -> str:
        """That of the networks."""
        return self.dtype

    def prepare(self, network: Network) -> None:
        """The checkpoint is all that is read."""

    def load(self, network: Network, feeds: Feeds) -> Call:
        """Read the weights."""
        torch.set_num_threads(self.model.threads)
        dtype = getattr(torch, self.dtype)
        module = module_of(self.model, network, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.change == "sdnq" and network != "vae":
            from sdnq import sdnq_post_load_quant

            module = sdnq_post_load_quant(module, weights_dtype="int8", use_quantized_matmul=True)

        def call(feeds: Feeds) -> np.ndarray:
            with torch.no_grad():
                found: np.ndarray = module(**tensors(feeds, dtype)).float().numpy()
            return found

        return call


def open_system(model: Model, dtype: str = "float32", change: str | None = None) -> TorchModules:
    """See `TorchModules`; sdnq computes its other layers in bfloat16 where the processor has it."""
    if change == "sdnq" and has_bfloat16():
        dtype = "bfloat16"
    return TorchModules(model=model, dtype=dtype, change=change)
