import pytest
import torch
from torch import Tensor, nn

from pocketxl.kernels import execute as execution
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.layers import ConvW8A8, LinearW8A8, quantize_layers, quantize_per_channel

from ..fixtures.networks import unet_inputs, unet_pair
from ..tolerances import INT8_LAYER_RELATIVE, INT8_UNET_RELATIVE


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ops' own tests run the kernels; these are about the modules."""
    monkeypatch.setattr(execution, "_INTERPRETED", False)


def relative(value: Tensor, truth: Tensor) -> float:
    return float((value.double() - truth.double()).detach().norm() / truth.double().detach().norm())


def test_weights_per_channel() -> None:
    weight = torch.randn(5, 3, 8)
    weight[2] = 0
    quantized, scale = quantize_per_channel(weight)
    assert quantized.shape == weight.shape
    assert (quantized.flatten(1).abs().amax(1)[scale > 0] == 127).all()
    assert scale[2] == 0
    back = quantized * scale[:, None, None]
    assert ((back - weight).abs().flatten(1).amax(1) <= scale / 2 + 1e-7).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias=bias)
    x = torch.randn(2, 9, 64)
    value = LinearW8A8(layer)(x)
    assert value.dtype == x.dtype
    assert 1e-4 < relative(value, layer(x)) < INT8_LAYER_RELATIVE


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_a_convolution(side: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 48, side, stride=stride, padding=side // 2)
    x = torch.randn(2, 32, 9, 6).to(memory_format=torch.channels_last)
    value = ConvW8A8(layer)(x)
    assert value.shape == layer(x).shape
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert 1e-4 < relative(value, layer(x)) < INT8_LAYER_RELATIVE


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Linear(24, 8), "k=24.*multiple of 16"),
        (nn.Conv2d(4, 32, 3, padding=1), "multiple of 16"),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), "groups=32.*one group"),
        (nn.Conv2d(32, 32, 3, padding=0), r"padding=\(0, 0\)"),
        (nn.Conv2d(32, 32, 3, padding=1, stride=(1, 2)), r"stride=\(1, 2\)"),
        (nn.Conv2d(32, 32, 5, padding=2), "kernel=5"),
    ],
)
def test_what_a_kernel_cannot_take_is_refused_with_the_reason(layer: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        LinearW8A8(layer) if isinstance(layer, nn.Linear) else ConvW8A8(layer)  # type: ignore[arg-type]


def test_a_unet_keeps_its_sensitive_layers_and_its_prediction() -> None:
    torch.manual_seed(0)
    pair = unet_pair("base")
    unet, given = pair.theirs, unet_inputs(pair.architecture, 2, 16, 24)
    conditions = {"text_embeds": given["pooled_prompt_embeds"], "time_ids": given["time_ids"]}

    def predict() -> Tensor:
        with torch.no_grad():
            made: Tensor = unet(given["latents"], 500, given["prompt_embeds"], added_cond_kwargs=conditions).sample
        return made

    truth = predict()
    replaced, kept = quantize_layers(unet)
    value = predict()
    names = {layer.name: layer.reason for layer in kept}
    assert {"conv_in", "conv_out", "time_embedding.linear_1"} <= set(names)
    assert all("attn2.to_k" not in name for name in replaced)
    assert any(name.endswith("attn1.to_q") for name in replaced)
    assert any(name.endswith("conv1") for name in replaced)
    assert isinstance(unet.get_submodule(replaced[0]), LinearW8A8 | ConvW8A8)
    assert 1e-3 < relative(value, truth) < INT8_UNET_RELATIVE
