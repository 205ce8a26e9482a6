"""Every kernel as a torch op; once this is imported, also as `torch.ops.pocketxl.<op>`."""

from .activate.op import activate
from .attention.op import attention, attention_int8, self_attention
from .attention_wide.op import attention_wide
from .conv.op import conv_w8a8
from .four_bits.op import geglu_linear_w4a8, linear_w4a8
from .half.op import conv_f16, linear_f16
from .linear.op import geglu_linear_w8a8, linear_w8a8
from .norm.op import (
    add_layer_norm_quantize,
    group_norm_silu,
    group_norm_silu_quantize,
    layer_norm,
    layer_norm_quantize,
)
from .pixels.op import read_pixels
from .quantize.op import geglu, geglu_quantize, quantize_per_image, quantize_per_token
from .weight_only.op import conv_w4, conv_w8, linear_w4, linear_w8

__all__ = [
    "activate", "add_layer_norm_quantize", "attention", "attention_int8", "attention_wide", "conv_f16", "conv_w4",
    "conv_w8", "conv_w8a8", "geglu", "geglu_linear_w4a8", "geglu_linear_w8a8", "geglu_quantize", "group_norm_silu",
    "group_norm_silu_quantize", "layer_norm", "layer_norm_quantize", "linear_f16", "linear_w4", "linear_w4a8",
    "linear_w8", "linear_w8a8", "quantize_per_image", "quantize_per_token", "read_pixels",
    "self_attention",
]  # fmt: skip
