"""A stand-in in segments answers as the whole, with one session alive at a time."""

import gc
import weakref
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.ort_session import open_session
from pocketxl.engine.specs import Arrays
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.segments import _Graph
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference import in_segments
from pocketxl.export.reference.in_segments import run_in_segments
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.rtx.target import rewrite, write_onnx

from ...fixtures.networks import UNetPair, unet_pair
from ...fixtures.onnx_run import StateDict
from ...tolerances import STAND_IN_IN_SEGMENTS
from ..targets.cpu.lowering import l2_error, noise, session

MOST = 128 << 10
RTX = TARGETS["rtx"]


@pytest.fixture(scope="module")
def pair() -> UNetPair:
    torch.manual_seed(0)
    return unet_pair("miniature")


def written(pair: UNetPair, recipe: str, folder: Path) -> Path:
    """The stand-in of an `rtx` engine, in halves."""
    spec = pair.architecture.unet()
    model = export_master("base/unet", lambda: UNet(pair.architecture), spec, dtype=torch.float16)
    rewrite(model)
    known = Quantization(recipe=fitted(RECIPES[recipe], RTX), role=spec.role)
    write_onnx(model, StateDict(pair.unet.state_dict()), known, folder)
    return folder


def sample(pair: UNetPair, batch: int, side: int, seed: int) -> Arrays:
    sizes = {"batch": batch, "tokens": 77, "height": side, "width": side}
    shapes = {t.name: [sizes[d] if isinstance(d, str) else d for d in t.shape] for t in pair.architecture.unet().inputs}
    return {name: noise(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("recipe", ["fp16", "int4-weight"])
def test_the_answers_are_those_of_the_whole(
    recipe: str, pair: UNetPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(pair, recipe, tmp_path)
    samples = [sample(pair, 1, 16, 0), sample(pair, 2, 8, 100), sample(pair, 1, 16, 200)]
    whole = session(folder / "model.onnx")
    expected = [whole.run(["prediction"], dict(one))[0] for one in samples]
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    opened = []

    def noted(model: Path, *rest: Any, **options: Any) -> Any:
        gc.collect()
        assert not alive, "the segment before is gone with its weights"
        opened.append(model.name)
        made = open_session(model, *rest, **options)
        alive.add(made)
        return made

    monkeypatch.setattr(in_segments, "open_session", noted)
    found = run_in_segments(folder, "base/unet", samples, threads=1, most=MOST)
    assert len(opened) > 3
    assert opened == sorted(set(opened)), "each is opened once, for all samples"
    for one, (made, wanted) in enumerate(zip(found, expected, strict=True)):
        assert set(made) == {"prediction"}, one
        assert l2_error(made["prediction"], wanted) < STAND_IN_IN_SEGMENTS


def test_wherever_it_is_cut_each_part_can_be_opened(pair: UNetPair, tmp_path: Path) -> None:
    """A full-size U-Net in halves was cut so that an upsampling took sizes from a skip of which nothing was told."""
    graph = _Graph(onnx.load(written(pair, "fp16", tmp_path) / "model.onnx", load_external_data=False))
    ends = [0, *(at + 1 for at, node in enumerate(graph.nodes) if graph._sum(at, node)), len(graph.nodes)]
    larger = [at for at, node in enumerate(graph.nodes) if node.op_type == "Resize"]
    parts = [
        (start, end)
        for start, end in combinations(ends, 2)
        if end - start < 300 and any(start <= at < end for at in larger)
    ]
    assert len(parts) > 100
    for start, end in np.random.default_rng(0).permutation(parts)[:40]:
        (tmp_path / "part.onnx").write_bytes(graph.part(int(start), int(end)).SerializeToString())
        session(tmp_path / "part.onnx")


def test_a_small_network_is_run_as_it_is(pair: UNetPair, tmp_path: Path) -> None:
    folder = written(pair, "fp16", tmp_path)
    one = sample(pair, 1, 8, 0)
    (found,) = run_in_segments(folder, "base/unet", [one], threads=1)
    assert np.array_equal(found["prediction"], session(folder / "model.onnx").run(None, dict(one))[0])
    assert not list(folder.glob("segment-*"))


def test_what_onnx_runtime_cannot_open_is_told_by_its_component(pair: UNetPair, tmp_path: Path) -> None:
    folder = written(pair, "fp16", tmp_path)
    (folder / "model.onnx.data").write_bytes(b"")
    with pytest.raises(IncompatibleError, match="base/unet: ONNX Runtime"):
        run_in_segments(folder, "base/unet", [sample(pair, 1, 8, 0)], threads=1)
