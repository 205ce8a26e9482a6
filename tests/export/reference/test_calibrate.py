"""What is kept of a layer: the ranges that really occurred, and inputs that hold the extremes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.export.reference.calibrate import watch
from pocketxl.export.reference.streamed import StreamedModule

from ...fixtures.calibration import observe
from ...fixtures.onnx_run import StateDict
from ..targets.cpu.lowering import image_spec, noise


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.query = nn.Linear(6, 5)
        self.key = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.silu(self.norm(self.first(x)))).flatten(2).transpose(1, 2)
        y: Tensor = self.query(x) * self.key(x)
        return y.transpose(1, 2)[:, :, :, None]


SAMPLES = [{"x": noise(2, 3, 12, 10, seed=i) * scale} for i, scale in enumerate((1.0, 5.0, 0.1))]


@pytest.fixture
def module() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def streamed(module: Net) -> StreamedModule:
    return StreamedModule(Net, image_spec(3, 5), StateDict(module.state_dict()))


def test_ranges_are_those_of_every_channel_over_all_samples(module: Net, streamed: StreamedModule) -> None:
    seen = observe(streamed, SAMPLES).layers["second"]
    with torch.inference_mode():
        taken = [F.silu(module.norm(module.first(torch.from_numpy(s["x"])))) for s in SAMPLES]
        given = [module.second(t) for t in taken]
    for tensors, low, high in (
        (taken, *seen.input_range),
        (given, *seen.output_range),
    ):
        values = torch.cat(tensors).transpose(0, 1).flatten(1)
        np.testing.assert_allclose(low, values.amin(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(high, values.amax(1), rtol=1e-5, atol=1e-6)
    assert seen.input_lows.min() >= -0.2785, "SiLU has a floor, which an asymmetric range can use"
    assert seen.output_energy == pytest.approx(float(torch.cat(given).square().mean()), rel=1e-5)
    assert seen.count == 3 * 2 * 6 * 5


@pytest.mark.parametrize("layer", ["first", "second", "query"])
def test_inputs_are_what_the_layer_multiplies_and_hold_the_extremes(
    layer: str, module: Net, streamed: StreamedModule
) -> None:
    seen = observe(streamed, SAMPLES, rows=12).layers[layer]
    weight, bias = (getattr(module, layer).get_parameter(name).detach() for name in ("weight", "bias"))
    outputs = seen.inputs @ weight.flatten(1).numpy().T + bias.numpy()
    assert len(seen.inputs) == 3 * 12
    assert (outputs >= seen.output_range[0] - 1e-4).all()
    assert (outputs <= seen.output_range[1] + 1e-4).all()
    assert seen.inputs.max() == pytest.approx(seen.input_highs.max(), rel=1e-6)
    assert seen.inputs.min() == pytest.approx(seen.input_lows.min(), rel=1e-6)


def test_layers_that_read_one_tensor_share_their_inputs(streamed: StreamedModule) -> None:
    seen = observe(streamed, SAMPLES)
    assert seen.layers["query"].inputs is seen.layers["key"].inputs
    assert seen.layers["query"].inputs is not seen.layers["second"].inputs
    assert sum(name.endswith("|inputs") and array.dtype.kind == "f" for name, array in seen.to_arrays().items()) == 3


def test_what_was_taken_is_forgotten_and_nothing_is_watched_afterwards(streamed: StreamedModule) -> None:
    with watch(streamed, 4) as seen:
        streamed(SAMPLES[0])
        assert set(seen.take().layers) == {"first", "second", "query", "key"}
        assert not seen.take().layers
        streamed(SAMPLES[0])
        assert len(seen.take().streams["norm"]) == 1
    streamed(SAMPLES[0])
    assert not seen.take().layers


class Doubled(nn.Module):
    """A convolution behind an upsampling, as a U-Net has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


@pytest.mark.parametrize("side", [12, 16, 24, 32])
def test_places_of_every_kind_are_looked_at_equally_often(side: int) -> None:
    """Behind an upsampling a patch has its first two rows alike, or its last two; columns likewise."""
    streamed = StreamedModule(Doubled, image_spec(3, 3), StateDict(Doubled().state_dict()))
    inputs = (
        observe(streamed, [{"x": noise(2, 3, side, side, seed=i)} for i in range(16)], rows=8).layers["conv"].inputs
    )
    patches = inputs.reshape(-1, 3, 3, 3)
    upper = (patches[:, :, 0] == patches[:, :, 1]).all((1, 2))
    left = (patches[:, :, :, 0] == patches[:, :, :, 1]).all((1, 2))
    for rows in (upper, ~upper):
        for columns in (left, ~left):
            assert 0.15 < np.mean(rows & columns) < 0.35
