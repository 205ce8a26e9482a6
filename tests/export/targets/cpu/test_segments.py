"""How the cpu target cuts a component: what is in a segment, what crosses, what it takes, and what stays whole."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.models.unet import UNet
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.specs import Arrays
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.segments import write_segments
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import Lowered
from pocketxl.export.targets.cpu.target import CpuTarget

from ....fixtures.networks import UNetPair, unet_pair, vae_pair
from ....fixtures.onnx_run import StateDict
from .lowering import noise, session

MOST = 256 << 10


@pytest.fixture(scope="module")
def pair() -> UNetPair:
    torch.manual_seed(0)
    return unet_pair("base")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the int8 engine that several tests only read."""
    return tmp_path_factory.mktemp("segments")


@pytest.fixture(scope="module")
def made(pair: UNetPair, folder: Path) -> Lowered:
    return lower(pair, "int8", folder)


def lower(pair: UNetPair, recipe: str, out: Path, most: int = MOST) -> Lowered:
    """Into segments of `most` bytes; ranges of convolutions are made up."""
    convs = {n: m for n, m in pair.unet.named_modules() if isinstance(m, nn.Conv2d)}
    step = np.float32(0.05)
    ranges = {
        name: StaticRange(
            input_scale=np.full(conv.in_channels, step), input_zero=100,
            output_scale=np.full(conv.out_channels, step), output_zero=128,
        )
        for name, conv in convs.items()
    }  # fmt: skip
    spec = pair.architecture.unet()
    known = Quantization(recipe=RECIPES[recipe], role=spec.role, ranges=ranges if recipe == "int8" else {})
    model = export_master("base/unet", lambda: UNet(pair.architecture), spec)
    weights = StateDict(pair.unet.state_dict())
    return CpuTarget(segment_bytes=most).lower("base/unet", spec, model, weights, known, out, out)


def sample(pair: UNetPair, batch: int = 1, side: int = 16) -> Arrays:
    sizes = {"batch": batch, "tokens": 77, "height": side, "width": side}
    shapes = {t.name: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in pair.architecture.unet().inputs}
    return {name: noise(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def graph(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def external(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def in_order(values: Arrays, sessions: list[onnxruntime.InferenceSession]) -> tuple[Arrays, list[int]]:
    """What the segments make one after another, and the bytes that are carried behind each but the last."""
    made: dict[str, np.ndarray] = dict(values)
    given, carried = set(values), []
    for at, one in enumerate(sessions):
        outputs = [value.name for value in one.get_outputs()]
        found = one.run(outputs, {value.name: made[value.name] for value in one.get_inputs()})
        made |= dict(zip(outputs, found, strict=True))
        later = {value.name for other in sessions[at + 1 :] for value in other.get_inputs()} - given
        carried.append(sum(made[name].nbytes for name in later if name in made))
    return made, carried[:-1]


@pytest.mark.parametrize("recipe", ["int8", "int8-weight", "int4-weight", "fp32"])
def test_segments_are_the_whole_to_the_bit(recipe: str, pair: UNetPair, tmp_path: Path) -> None:
    made = lower(pair, recipe, tmp_path)
    assert made.streaming is not None
    segments = made.streaming.segments
    assert len(segments) > 4
    whole = session(tmp_path / "model.onnx")
    sessions = [session(tmp_path / segment.file) for segment in segments]
    for batch, side in ((1, 16), (2, 9)):
        inputs = sample(pair, batch, side)
        expected = whole.run(["prediction"], dict(inputs))[0]
        assert np.array_equal(in_order(inputs, sessions)[0]["prediction"], expected)


def test_what_is_carried_is_told_exactly(pair: UNetPair, made: Lowered, folder: Path) -> None:
    assert made.streaming is not None
    sessions = [session(folder / segment.file) for segment in made.streaming.segments]
    for batch, side in ((1, 32), (2, 32), (1, 64)):
        inputs = sample(pair, batch, side)
        _, carried = in_order(inputs, sessions)
        told = made.streaming.carried.bytes_at(64 * side * side, batch=batch)
        assert max(carried) <= told <= 1.01 * max(carried)
        inside = made.streaming.activation.bytes_at(64 * side * side, batch=batch)
        whole = made.activation.bytes_at(64 * side * side, batch=batch)
        assert 0 < inside <= whole <= 1.001 * (inside + told), "the two are what the whole has at once"


def test_every_node_is_in_one_segment_and_weights_come_in_order(made: Lowered, folder: Path) -> None:
    assert made.streaming is not None
    whole = graph(folder / "model.onnx")
    parts = [graph(folder / segment.file) for segment in made.streaming.segments]
    names = [node.name for part in parts for node in part.graph.node if node.op_type != "Split"]
    assert names == [node.name for node in whole.graph.node if node.op_type != "Split"]
    offsets = [int(external(t)["offset"]) for t in whole.graph.initializer if t.external_data]
    assert offsets == sorted(offsets)
    for segment, part in zip(made.streaming.segments, parts, strict=True):
        assert segment.size < 3 * MOST, "one stretch that cannot be cut is larger"
        inside = [external(t) for t in part.graph.initializer if t.external_data]
        assert {entry["location"] for entry in inside} <= {"model.onnx.data"}
        for entry in inside:
            assert segment.start <= int(entry["offset"])
            assert int(entry["offset"]) + int(entry["length"]) <= segment.start + segment.size
    assert all(a.start + a.size <= b.start for a, b in pairwise(made.streaming.segments) if b.size)


def test_cuts_lie_behind_sums_of_the_network(pair: UNetPair, tmp_path: Path) -> None:
    lower(pair, "int8", tmp_path, most=1 << 40)
    assert not list(tmp_path.glob("segment-*"))
    _, cuts = write_segments(tmp_path, 1)  # as often as it can
    kinds = {name.rpartition("/")[2] for name in (cut.behind for cut in cuts)}
    assert len(cuts) > 30
    assert all(kind.startswith("Add") for kind in kinds)
    assert not any("norm" in cut.behind for cut in cuts)


def test_the_same_bytes_twice(pair: UNetPair, made: Lowered, folder: Path, tmp_path: Path) -> None:
    assert lower(pair, "int8", tmp_path) == made
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_small_components_and_the_vae_stay_whole(pair: UNetPair, tmp_path: Path) -> None:
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
    assert lower(pair, "fp32", tmp_path / "unet", CpuTarget().segment_bytes).streaming is None
    vae = vae_pair()
    spec = vae.architecture.decoder()
    known = Quantization(recipe=RECIPES["fp32"], role=spec.role)
    master = export_master("vae_decoder", lambda: VaeDecoder(vae.architecture), spec)
    out = tmp_path / "vae"
    made = CpuTarget(segment_bytes=1).lower(
        "vae_decoder", spec, master, StateDict(vae.ours.state_dict()), known, out, out
    )
    assert made.streaming is None
