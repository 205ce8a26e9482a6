"""The kernels as torch modules, and a model's layers replaced by them.

What a kernel cannot do stays the float layer that it was, which is exactly as fast as before; `quantize_layers` says
which and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from .architecture import architecture
from .conv.op import conv_w8a8
from .conv.plan import plan_conv_w8a8
from .errors import UnsupportedShapeError, require
from .linear.op import linear_w8a8
from .linear.plan import plan_linear_w8a8
from .quantize.op import quantize_per_image, quantize_per_token
from .sensitive import Stands, sensitive_pattern

# Inputs are quantized by their own ranges, so layers that stand that much are not kept.
KEEP: Final = sensitive_pattern(Stands.WEIGHTS_8)


def quantize_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 per output channel: `weight (n, …) ~ q * scale`; scale (n,) float32, `amax` / 127."""
    rows = weight.detach().float().flatten(1)
    scale = rows.abs().amax(1) / 127
    steps = torch.where(scale > 0, scale, 1.0)[:, None]
    return (rows / steps).round().clamp(-127, 127).to(torch.int8).view(weight.shape), scale


class LinearW8A8(nn.Module):
    """A linear layer on int8 weights and activations quantized per token as they come, (…, k) to (…, n)."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        """Quantize a float layer.

        Raises `UnsupportedShapeError`: the kernel cannot take the layer's widths.
        """
        super().__init__()
        # Every architecture has the same constraints on widths.
        plan_linear_w8a8(m=1, n=layer.out_features, k=layer.in_features, arch=architecture(80))
        weight, scale = quantize_per_channel(layer.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        quantized, scale = quantize_per_token(x)
        out: Tensor = linear_w8a8(quantized, scale, self.weight, self.weight_scale, bias, None, x.dtype)
        return out


class ConvW8A8(nn.Module):
    """A 3×3 or 1×1 convolution on int8 weights and activations quantized per picture.

    Takes and gives (batch, channels, height, width), channels last in memory, as torch's own convolutions do.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        """Quantize a float layer.

        Raises `UnsupportedShapeError`: the kernel cannot take the layer's channels, size, stride, padding or groups.
        """
        super().__init__()
        side = layer.kernel_size[0]
        require(
            layer.groups == 1
            and layer.dilation == (1, 1)
            and layer.padding == (side // 2, side // 2)
            and layer.kernel_size == (side, side)
            and layer.stride[0] == layer.stride[1],
            "conv_w8a8",
            {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")},
            "a convolution has one group, no dilation, one stride, and a padding of half its side",
        )
        self.stride = layer.stride[0]
        plan_conv_w8a8(
            b=1, h=8, w=8, c=layer.in_channels, n=layer.out_channels, kernel=side, stride=self.stride,
            arch=architecture(80),
        )  # fmt: skip
        weight, scale = quantize_per_channel(layer.weight.permute(0, 2, 3, 1))
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        quantized, scale = quantize_per_image(x.permute(0, 2, 3, 1).contiguous())
        out: Tensor = conv_w8a8(
            quantized, scale, self.weight, self.weight_scale, bias, stride=self.stride, out_dtype=x.dtype
        )
        return out.permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A layer that stayed as it was, and why."""

    name: str
    reason: str


def quantize_layers(model: nn.Module, keep: str = KEEP) -> tuple[list[str], list[Kept]]:
    """Replace linears and convolutions in place by their W8A8 forms.

    `model`: for instance diffusers' SDXL U-Net in float16. `keep`: a regular expression of the whole names that stay
    in floats.

    Returns names of the replaced layers, and those kept with the reason.
    """
    replaced, kept = [], []
    for name, layer in _layers(model):
        if re.fullmatch(keep, name):
            kept.append(Kept(name=name, reason="sensitive: stays in floats"))
            continue
        try:
            model.set_submodule(name, LinearW8A8(layer) if isinstance(layer, nn.Linear) else ConvW8A8(layer))
        except UnsupportedShapeError as error:
            kept.append(Kept(name=name, reason=str(error)))
        else:
            replaced.append(name)
    return replaced, kept


def _layers(model: nn.Module) -> Iterable[tuple[str, nn.Linear | nn.Conv2d]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
