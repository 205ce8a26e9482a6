"""The cpu target: what becomes of every layer of a U-Net, how close it stays, the same bytes twice, memory, errors."""

import errno
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from pocketxl.engine.errors import StorageError
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.specs import ComponentSpec, Role
from pocketxl.export.graph.layers import find_layers
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.formats import FLOAT32, W4, W4A8, W8, W8A8_GROUP, W8A8_TOKEN, Format, Kind
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.quantize.ranges import fit_ranges
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.parity import Figures, compare
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.target import Lowered
from pocketxl.export.targets.check import recipes_for
from pocketxl.export.targets.cpu.target import CpuTarget

from ....fixtures.calibration import observe
from ....fixtures.networks import UNetPair, unet_pair
from ....fixtures.onnx_run import StateDict
from ....tolerances import NETWORK_RELATIVE, RECIPE_RELATIVE
from .lowering import noise, operators, session

Sample = dict[str, np.ndarray]
Ranges = dict[str, StaticRange]


@pytest.fixture(scope="module")
def pair() -> UNetPair:
    torch.manual_seed(0)
    return unet_pair("base")


@pytest.fixture(scope="module")
def reference(pair: UNetPair) -> StreamedModule:
    return StreamedModule(lambda: UNet(pair.architecture), pair.architecture.unet(), StateDict(pair.unet.state_dict()))


@pytest.fixture(scope="module")
def ranges(pair: UNetPair, reference: StreamedModule) -> Ranges:
    """Of every convolution, from what it shows."""
    convs = {n: m for n, m in pair.unet.named_modules() if isinstance(m, nn.Conv2d)}
    seen = observe(reference, [sample(pair, seed) for seed in range(2)]).layers
    return {
        name: fit_ranges(
            conv.weight.detach().flatten(1).numpy(),
            None if conv.bias is None else conv.bias.detach().numpy(),
            seen[name],
        )
        for name, conv in convs.items()
    }


OPEN = {
    *("open-attention.onnx", "open-control.onnx", "open-features.onnx", "open-image.onnx", "open.onnx"),
    *("cached-open.onnx", "cached.onnx", "shallow-open.onnx", "shallow.onnx"),
}


def sample(pair: UNetPair, seed: int, batch: int = 1, height: int = 16, width: int = 16) -> Sample:
    sizes: dict[int | str, int] = {"batch": batch, "tokens": 7, "height": height, "width": width}
    return {
        t.name: noise(*(sizes.get(d, d) for d in t.shape), seed=100 * seed + i)  # type: ignore[arg-type]
        for i, t in enumerate(pair.architecture.unet().inputs)
    }


def lower(pair: UNetPair, recipe: str, ranges: Ranges, out: Path, weights: StateDict | None = None) -> Path:
    model = export_master("base/unet", lambda: UNet(pair.architecture), pair.architecture.unet())
    weights = weights or StateDict(pair.unet.state_dict())
    made = lower_into(out, "base/unet", pair.architecture.unet(), model, weights, recipe, ranges)
    assert made.stand_in is None
    assert {p.name for p in out.iterdir()} == {"model.onnx", "model.onnx.data", *OPEN}
    return out / "model.onnx"


def lower_into(
    out: Path,
    name: str,
    spec: ComponentSpec,
    model: ir.Model,
    weights: StateDict,
    recipe: str,
    ranges: Ranges | None = None,
) -> Lowered:
    known = Quantization(recipe=RECIPES[recipe], role=spec.role, ranges=ranges or {})
    return CpuTarget().lower(name, spec, model, weights, known, out, out)


def figures(path: Path, reference: StreamedModule, samples: list[Sample]) -> Figures:
    engine = session(path)
    return compare(reference, lambda inputs: {"prediction": engine.run(None, inputs)[0]}, samples)


@pytest.mark.parametrize("recipe", recipes_for(CpuTarget()))
def test_every_recipe_stays_within_its_own_threshold(
    recipe: str, pair: UNetPair, reference: StreamedModule, ranges: Ranges, tmp_path: Path
) -> None:
    path = lower(pair, recipe, ranges, tmp_path)
    unseen = [sample(pair, 7), sample(pair, 8, batch=2, height=8, width=24), sample(pair, 9, height=12, width=20)]
    result = figures(path, reference, unseen)
    assert result.relative_error < RECIPE_RELATIVE.get(recipe, RECIPES[recipe].max_relative_error[Role.UNET])
    assert (result.relative_error > 1e-4) == (recipe != "fp32"), "quantizing is not free: was anything quantized?"


def test_int8_leaves_no_float_layer_but_those_that_the_recipe_keeps(
    pair: UNetPair, ranges: Ranges, tmp_path: Path
) -> None:
    model = export_master("base/unet", lambda: UNet(pair.architecture), pair.architecture.unet())
    convs = [n for n, m in pair.unet.named_modules() if isinstance(m, nn.Conv2d)]
    kept = [n for n in convs if n in ("conv_in", "conv_out") or "conv_shortcut" in n or "downsamplers" in n]
    linears = sum(isinstance(m, nn.Linear) for m in pair.unet.modules())
    transformers = len(pair.architecture.attention_widths())
    lower_into(
        tmp_path, "base/unet", pair.architecture.unet(), model, StateDict(pair.unet.state_dict()), "int8", ranges
    )
    count = operators(model)
    assert sorted(layer.name for layer in find_layers(model.graph)) == sorted(kept)
    assert count["QLinearConv"] == len(convs) - len(kept) > len(kept)
    assert count["DynamicQuantizeMatMul"] + count["MatMulIntegerToFloat"] == linears + transformers  # GEGLU is two
    assert count["DynamicQuantizeLinear"] == 2 * transformers  # q/k/v, and the halves of GEGLU
    assert count["MultiHeadAttention"] == 2 * transformers
    assert not {"MatMul", "Attention", "Sigmoid"} & set(count)
    assert count["Split"] == 1, "the time vectors alone"
    initializers = model.graph.initializers.items()
    floats = {n for n, v in initializers if v.dtype == ir.DataType.FLOAT and v.const_value.size > 2000}
    assert floats <= {f"{name}.weight" for name in kept}, "no float copy of a quantized weight"


@pytest.mark.parametrize(
    ("name", "linear", "conv"),
    [
        ("w8a8_token", W8A8_TOKEN, FLOAT32),
        ("w8a8_group", W8A8_GROUP, FLOAT32),
        ("w4a8", W4A8, FLOAT32),
        ("w4", W4, W4),
    ],
)
def test_a_network_of_every_other_format(
    name: str, linear: Format, conv: Format, pair: UNetPair, reference: StreamedModule, tmp_path: Path
) -> None:
    spec = pair.architecture.unet()
    model = export_master("base/unet", lambda: UNet(pair.architecture), spec)
    kinds = {layer.name: layer.kind for layer in find_layers(model.graph)}
    assigned = {layer: linear if kind is Kind.LINEAR else conv for layer, kind in kinds.items()}
    known = Quantization(recipe=RECIPES["fp32"], role=Role.UNET, assigned=assigned)
    made = CpuTarget().lower("base/unet", spec, model, StateDict(pair.unet.state_dict()), known, tmp_path, tmp_path)
    error = figures(tmp_path / "model.onnx", reference, [sample(pair, 7), sample(pair, 9, height=12, width=20)])
    assert NETWORK_RELATIVE[name] / 2 < error.relative_error < NETWORK_RELATIVE[name]
    assert made.exact_threads is None, "the same for any number of threads"


def test_same_inputs_same_bytes(pair: UNetPair, ranges: Ranges, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = lower(pair, "int8", ranges, tmp_path / name)
        files.append((path.read_bytes(), path.with_name("model.onnx.data").read_bytes()))
    assert files[0] == files[1]


def test_weights_are_read_one_after_the_other_and_not_twice(pair: UNetPair, ranges: Ranges, tmp_path: Path) -> None:
    weights = StateDict(pair.unet.state_dict())
    lower(pair, "int8", ranges, tmp_path, weights)
    wide = {n for n, p in pair.unet.named_parameters() if p.ndim > 1 and p.shape[0] > 64}  # scales beside the data
    assert wide
    twice = {n for n in wide if weights.reads.count(n) > 1}
    assert all(".ff.net.0.proj." in name for name in twice), "only GEGLU's projection, which is cut in two"


def test_conditioner_keeps_its_time_path_in_floats(pair: UNetPair, tmp_path: Path) -> None:
    spec = pair.architecture.conditioner()
    model = export_master("base/conditioner", lambda: Conditioner(pair.architecture), spec)
    weights = StateDict(pair.conditioner.state_dict())
    lower_into(tmp_path, "base/conditioner", spec, model, weights, "int8")
    names = {layer.name for layer in find_layers(model.graph)}
    assert operators(model)["DequantizeLinear"] == 2 * len(pair.architecture.attention_widths())
    assert W8 not in {RECIPES["int8"].format(Role.CONDITIONER, Kind.LINEAR, name) for name in names}
    session(tmp_path / "model.onnx")


def test_full_disk_is_a_storage_error(
    pair: UNetPair, ranges: Ranges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(StorageError, match="No space left on device"):
        lower(pair, "int8", ranges, tmp_path)
