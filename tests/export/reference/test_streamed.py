"""The streamed module is the module, but for its memory."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.models.unet import UNet
from pocketxl.export.reference.streamed import StreamedModule

from ...fixtures.networks import unet_pair
from ...tolerances import MODEL_RELATIVE
from ..targets.cpu.lowering import answer, image_spec, l2_error, noise


class Tracked:
    """Weights that count how many of the tensors that they gave out are alive."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = module.state_dict()
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most = 0

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self.weights[name].to(torch.float64)  # `.float()` makes its own copy, so this one must die
        self.alive.add(tensor)
        self.most = max(self.most, len(self.alive))
        return tensor


def test_computes_what_the_whole_module_computes() -> None:
    pair = unet_pair("miniature")
    spec = pair.architecture.unet()
    sizes = {"batch": 2, "tokens": 7, "height": 8, "width": 12}
    inputs = {
        t.name: noise(*(sizes.get(str(d), d) for d in t.shape), seed=i)  # type: ignore[arg-type]
        for i, t in enumerate(spec.inputs)
    }
    streamed = StreamedModule(lambda: UNet(pair.architecture), spec, Tracked(pair.unet))
    key_values = [torch.from_numpy(v) for k, v in inputs.items() if k.startswith("key_values")]
    with torch.inference_mode():
        expected = pair.unet(torch.from_numpy(inputs["latents"]), torch.from_numpy(inputs["time_vectors"]), key_values)
    assert l2_error(streamed(inputs)["prediction"], expected.numpy()) < MODEL_RELATIVE


def test_holds_one_layer_at_a_time_and_nothing_afterwards() -> None:
    layers = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)])
    weights = Tracked(layers)
    streamed = StreamedModule(
        lambda: nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)]), image_spec(4, 4), weights
    )
    # Sequential takes `input`, not `x`: give the spec's name to it.
    module: Any = streamed.module
    forward: Any = nn.Sequential.forward
    module.forward = lambda x: forward(module, x)
    x = noise(1, 4, 5, 5)
    np.testing.assert_allclose(streamed({"x": x})["y"], answer(layers, x), atol=1e-6)
    gc.collect()
    assert weights.most <= 2, "weight and bias of one layer"
    assert not weights.alive
    assert all(p.is_meta for p in streamed.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_computes_in_float32_whatever_the_weights_are_stored_in(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(3, 3, 1).to(dtype)
    streamed = StreamedModule(lambda: _Named(), image_spec(3, 3), Tracked(nn.ModuleDict({"conv": layer})))
    x = noise(1, 3, 4, 4)
    assert streamed({"x": x})["y"].dtype == np.float32
    np.testing.assert_allclose(streamed({"x": x})["y"], answer(layer.float(), x), atol=1e-6)


class _Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y
