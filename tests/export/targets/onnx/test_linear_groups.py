"""Linear layers whose weights have a scale for some inputs: the arithmetic, outliers, threads, and the bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketxl.export.graph.activations import dequantized_bytes
from pocketxl.export.quantize.formats import W4, W4A8, W8A8_GROUP, Activation, Format, Kind, Weight
from pocketxl.export.targets.cpu.linear_int8 import int8_bytes
from pocketxl.export.targets.cpu.weight_only import exact_threads
from pocketxl.export.targets.onnx.linear_groups import linear_groups

from ....tolerances import INT8_KERNEL_RELATIVE, MODEL_RELATIVE
from ..cpu.lowering import Single, all_as, answer, dequantized, l2_error, master_of, noise, operators, run, token_spec

FORMATS = {"w8a8": W8A8_GROUP, "w4": W4, "w4a8": W4A8}
SHORT = Weight(bits=4, granularity="group", group=16)
"""Without zero points, in groups of another size."""


def outliers(*shape: int) -> np.ndarray:
    """One channel a hundred times as large as the others, one token thirty times, one of zeros."""
    x = noise(*shape)
    x[..., 0] *= 100
    x[:, 1] *= 30
    x[:, 2] = 0
    return x


def multiplied(x: np.ndarray, format: Format) -> np.ndarray:
    """What is left of the inputs: 127 steps for the largest magnitude of each group of each token, float64."""
    if format.activation is None:
        return x.astype(np.float64)
    assert format.weight is not None
    size = format.weight.group or 0
    parts = []
    for start in range(0, x.shape[-1], size):
        part = x[..., start : start + size].astype(np.float64)
        scale = np.abs(part).max(axis=-1, keepdims=True) / 127
        scale[scale == 0] = 1
        parts.append(np.rint(part / scale) * scale)
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "out"), [(64, 48), (128, 16), (100, 33), (200, 17), (24, 7), (1280, 320)])
@pytest.mark.parametrize(
    "format",
    [*FORMATS.values(), Format(weight=SHORT), Format(weight=SHORT, activation=W4A8.activation)],
    ids=[*FORMATS, "w4 short", "w4a8 short"],
)
def test_is_the_product_in_groups(format: Format, width: int, out: int, bias: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Single(nn.Linear(width, out, bias=bias))
    model = master_of(module, token_spec(width, out))
    linear_groups(model.graph, all_as(Kind.LINEAR, format))
    x = outliers(2, 5, width)
    y = run(model, tmp_path, {"x": x})
    expected = multiplied(x, format) @ dequantized(module.layer.weight, format.weight).T
    expected += module.layer.bias.detach().numpy() if bias else 0
    limit = MODEL_RELATIVE if format.activation is None else INT8_KERNEL_RELATIVE
    for token in range(5):
        exact = expected[:, token]
        assert np.abs(y[:, token] - exact).max() < limit * max(float(np.linalg.norm(exact)), 1e-6)
    assert operators(model) == {"MatMulNBits": 1, "Transpose": 1}, "the float weight's, which nobody reads"


def test_an_outlier_channel_costs_little(tmp_path: Path) -> None:
    """One range for the tensor would lose nine tenths of what the other channels say."""
    torch.manual_seed(2)
    module = Single(nn.Linear(256, 64))
    size = torch.ones(256)
    size[7] = 100.0
    module.layer.weight = nn.Parameter(module.layer.weight.detach() / size)
    x = noise(1, 40, 256) * size.numpy()
    model = master_of(module, token_spec(256, 64))
    linear_groups(model.graph, all_as(Kind.LINEAR, W8A8_GROUP))
    assert l2_error(run(model, tmp_path, {"x": x}), answer(module, x)) < 0.2


def test_sampled_inputs_reach_the_rounding(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Single(nn.Linear(64, 16, bias=False))
    x = noise(1, 500, 64)
    x[..., :4] *= 50
    model = master_of(module, token_spec(64, 16))
    linear_groups(model.graph, all_as(Kind.LINEAR, W4, inputs={"layer": x[0]}))
    y = run(model, tmp_path, {"x": x})
    assert l2_error(y, x.astype(np.float64) @ dequantized(module.layer.weight, W4.weight, x[0]).T) < MODEL_RELATIVE


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_threads_change_nothing(format: Format, tmp_path: Path) -> None:
    model = master_of(Single(nn.Linear(320, 192)), token_spec(320, 192))
    linear_groups(model.graph, all_as(Kind.LINEAR, format))
    most = exact_threads(model.graph)
    x = outliers(2, 77, 320)
    counts = [threads for threads in (1, 2, 3, 4) if most is None or threads <= most]
    assert len(counts) > 1
    one, *others = (run(model, tmp_path, {"x": x}, threads=threads) for threads in counts)
    assert all(np.array_equal(one, other) for other in others)


@pytest.mark.parametrize(
    ("format", "bytes_of_a_group"), [(W8A8_GROUP, 64 + 4), (W4, 32 + 4 + 0.5), (W4A8, 32 + 4 + 0.5)]
)
def test_stored_bytes(format: Format, bytes_of_a_group: float, tmp_path: Path) -> None:
    out, width = 256, 1280
    model = master_of(Single(nn.Linear(width, out, bias=False)), token_spec(width, out))
    linear_groups(model.graph, all_as(Kind.LINEAR, format))
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    run(model, tmp_path, {"x": noise(1, 1, width)})
    stored = (tmp_path / "model.onnx.data").stat().st_size
    assert stored == pytest.approx(out * width / 64 * bytes_of_a_group, rel=0.01)
    assert (int8_bytes(model.graph), dequantized_bytes(model.graph)) == (0, 0)


def test_layers_of_other_formats_are_left_alone() -> None:
    model = master_of(Single(nn.Linear(64, 16)), token_spec(64, 16))
    per_token = Activation(bits=8, range="dynamic", granularity="token")
    linear_groups(model.graph, all_as(Kind.LINEAR, Format(weight=Weight(bits=8), activation=per_token)))
    assert not operators(model)["MatMulNBits"]
