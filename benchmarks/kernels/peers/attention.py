"""Attention by torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..systems import System, Work, normal


def attentions(shape: Mapping[str, Any]) -> dict[str, System]:
    """Systems for scaled dot-product attention, by torch's three implementations."""

    def sdpa(backend: SDPBackend) -> System:
        def system(seed: int) -> Work:
            batch, heads = shape["batch"], shape["heads"]
            q, k, v = (
                normal(batch, tokens, heads * 64, seed=seed + i).view(batch, tokens, heads, 64).transpose(1, 2)
                for i, tokens in enumerate((shape["m"], shape["n"], shape["n"]))
            )

            def run() -> Tensor:
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v)

            return run

        return system

    return {
        "sdpa-flash": sdpa(SDPBackend.FLASH_ATTENTION),
        "sdpa-cudnn": sdpa(SDPBackend.CUDNN_ATTENTION),
        "sdpa-efficient": sdpa(SDPBackend.EFFICIENT_ATTENTION),
    }
