"""The calls of a whole U-Net are a call for every layer of the published architecture, and what quantizes for it."""

from collections import Counter

import pytest

from benchmarks.kernels.unet import unet_calls, unet_plans
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.sdxl_layers import Attention, Conv, GroupNorm, LayerNorm, Linear, UNetName, layers


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("model", ["base", "refiner"])
def test_every_layer_has_its_call(model: UNetName, by_rows: bool) -> None:
    walk = Counter(
        "gated" if isinstance(layer, Linear) and layer.gated else type(layer).__name__
        for layer in layers(model, height=1024, width=1024)
    )
    kinds = {
        "linear_w8a8": Linear, "conv_w8a8": Conv, "conv_f16": Conv, "group_norm_silu": GroupNorm,
        "group_norm_silu_quantize": GroupNorm, "layer_norm_quantize": LayerNorm, "attention": Attention,
        "self_attention": Attention,
    }  # fmt: skip
    names = {**{op: kind.__name__ for op, kind in kinds.items()}, "geglu_linear_w8a8": "gated"}
    found = Counter(names[call.op] for call in unet_calls(model, by_rows=by_rows) if call.op in names)
    del walk["Concatenate"]  # no call: norms and shortcuts read both pictures
    assert found == walk
    quantized = {call.op for call in unet_calls(model, by_rows=by_rows)} - set(names)
    assert quantized == {"quantize_per_token", "quantize_per_image", "read_pixels"}
    rounded = sum("quantized" in call.shape for call in unet_calls(model, by_rows=by_rows))
    rows = sum(call.op == "quantize_per_token" for call in unet_calls(model, by_rows=by_rows))
    blocks = walk["gated"]  # of each two attentions and GEGLU
    assert (rounded, rows) == ((0, 22 + 3 * blocks) if by_rows else (3 * blocks, 22))


def test_plans_are_for_the_size_and_the_card() -> None:
    large, small = (unet_plans("base", architecture(89, sms), size=1024, batch=2) for sms in (128, 24))
    operations = [sum(sum(made.operations.values()) for made in plans) for plans in (large, small)]
    assert operations[0] == operations[1]
    assert [made.launches for made in large] != [made.launches for made in small]  # sums are shared out otherwise
    one = unet_plans("base", architecture(89), size=1024, batch=1)
    assert sum(sum(made.operations.values()) for made in one) * 2 == operations[0]
