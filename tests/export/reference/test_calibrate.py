"""Ranges are the extremes that really occurred."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.export.reference.calibrate import Calibration
from pocketxl.export.reference.streamed import StreamedModule

from ...fixtures.calibration import observe
from ...fixtures.onnx_run import StateDict
from ..targets.cpu.lowering import image_spec, noise


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.silu(self.first(x)))
        return y


@pytest.fixture
def module() -> Two:
    torch.manual_seed(0)
    return Two()


def test_extremes_over_all_samples(module: Two) -> None:
    samples = [{"x": noise(1, 3, 6, 6, seed=i) * scale} for i, scale in enumerate((1.0, 5.0, 0.1))]
    streamed = StreamedModule(Two, image_spec(3, 2), StateDict(module.state_dict()))
    ranges = observe(streamed, samples, ["second"]).ranges
    with torch.inference_mode():
        taken = [F.silu(module.first(torch.from_numpy(s["x"]))) for s in samples]
        given = [module.second(t) for t in taken]
    expected = [
        edge(number for tensor in tensors for number in tensor.flatten().tolist())
        for tensors in (taken, given)
        for edge in (min, max)
    ]
    assert set(ranges) == {"second"}
    np.testing.assert_allclose(ranges["second"], expected, rtol=1e-5)
    assert ranges["second"][0] >= -0.2785, "SiLU has a floor, which an asymmetric range can use"
    streamed({"x": samples[0]["x"] * 100})
    np.testing.assert_allclose(ranges["second"], expected, rtol=1e-5, err_msg="later calls are not watched")


def test_json_round_trip_is_exact() -> None:
    calibration = Calibration(ranges={"b": (-0.1, 1 / 3, -2.0, 1e-7), "a": (0.0, 1.0, 0.0, 1.0)})
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    assert list(calibration.to_json()["ranges"]) == ["a", "b"]
