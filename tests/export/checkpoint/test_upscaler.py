"""What is read as an upscaler, and what is refused: all of it from the header of a file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketxl.engine.errors import IncompatibleError, IntegrityError, PocketXLError, StorageError
from pocketxl.engine.upscaler import UpscalerArchitecture, UpscalerKind
from pocketxl.export.checkpoint.upscaler import open_upscaler

from ...fixtures.upscalers import (
    HAVE_SPANDREL,
    bsrgan_names,
    compact,
    esrgan,
    real_esrgan_names,
    spandrel,
    write_upscaler,
)

SMALL = UpscalerArchitecture(kind=UpscalerKind.ESRGAN, scale=4, width=16, blocks=2, growth=32)


@pytest.mark.parametrize("names", [dict, real_esrgan_names, bsrgan_names])
@pytest.mark.parametrize("prefix", ["", "params_ema.", "module."])
def test_every_name_gives_the_same_network(
    names: Callable[..., dict[str, torch.Tensor]], prefix: str, tmp_path: Path
) -> None:
    state = esrgan().state_dict()
    named = names(state)
    if HAVE_SPANDREL:
        theirs = spandrel().MAIN_REGISTRY.load(named).model.state_dict()
        assert all(torch.equal(theirs[name], state[name]) for name in state), "they are names that spandrel knows"
    found = open_upscaler(
        write_upscaler(tmp_path / "4x.safetensors", {prefix + name: tensor for name, tensor in named.items()})
    )
    assert found.architecture == SMALL
    assert {name: found.weights.tensor(name).sum() for name in found.weights} == {
        name: tensor.sum() for name, tensor in real_esrgan_names(state).items()
    }


@pytest.mark.parametrize(
    ("module", "numbers"),
    [
        (lambda: esrgan(scale=1, num_blocks=1), replace(SMALL, scale=1, blocks=1)),
        (lambda: esrgan(scale=8), replace(SMALL, scale=8)),
        (lambda: esrgan(plus=True), replace(SMALL, plus=True)),
        (lambda: esrgan(in_nc=12, shuffle_factor=2), replace(SMALL, unshuffle=2)),
        (compact, UpscalerArchitecture(kind=UpscalerKind.COMPACT, scale=2, width=12, blocks=3)),
    ],
    ids=["1x", "8x", "ESRGAN+", "Real-ESRGAN 2x", "compact"],
)
def test_its_numbers_follow_from_its_tensors(
    module: Callable[[], torch.nn.Module], numbers: UpscalerArchitecture, tmp_path: Path
) -> None:
    found = open_upscaler(write_upscaler(tmp_path / "model.safetensors", module().state_dict()))
    assert found.architecture == numbers


def _without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


def _state(**changes: Any) -> dict[str, torch.Tensor]:
    return dict(esrgan(**changes).state_dict())


OTHERS: Mapping[str, tuple[Callable[[], dict[str, torch.Tensor]], type[PocketXLError], str]] = {
    "grey": (lambda: _state(in_nc=1, out_nc=1), IncompatibleError, "reads 1 channels and gives 1; take an upscaler of"),
    "four channels": (lambda: _state(in_nc=4), IncompatibleError, "reads 4 channels and gives 3"),
    "grey compact": (
        lambda: compact(num_in_ch=1, num_out_ch=1).state_dict(), IncompatibleError, "reads 1 channels"
    ),
    "another": (
        lambda: {"conv_in.weight": torch.zeros(4, 4, 3, 3)}, IncompatibleError,
        r"of another network.* \(it has conv_in.weight\); an upscaler is built from",
    ),
    "incomplete": (
        lambda: {name: tensor for name, tensor in _state().items() if name != "model.0.weight"}, IntegrityError,
        r"lacks conv_first\.weight",
    ),
    "one more": (
        lambda: _state() | {"model.99.x": torch.zeros(1)}, IncompatibleError,
        r"is of (the network ESRGAN|another network) \(it has model.99.x\)",
    ),
    "one more in a compact one": (
        lambda: compact().state_dict() | {"other": torch.zeros(1)}, IncompatibleError, "compact network has not"
    ),
    "integers": (
        lambda: {name: tensor.to(torch.int8) for name, tensor in _state().items()}, IncompatibleError,
        "is of int8; give it in float64",
    ),
    "empty": (dict, IntegrityError, r"lacks conv_first\.weight"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "error", "says"), OTHERS.values(), ids=OTHERS)
def test_another_file_is_one_clear_error(
    state: Callable[[], dict[str, torch.Tensor]], error: type[PocketXLError], says: str, tmp_path: Path
) -> None:
    made = state()
    path = tmp_path / "model.safetensors"
    if made:
        write_upscaler(path, made)
    else:
        path.write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(error, match=says):
        open_upscaler(path)


@pytest.mark.skipif(not HAVE_SPANDREL, reason="spandrel is not installed")
def test_what_spandrel_knows_is_named(tmp_path: Path) -> None:
    spandrel()
    from spandrel.architectures.SPAN import SPAN

    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)
    with pytest.raises(IncompatibleError, match="is of the network SPAN"):
        open_upscaler(write_upscaler(tmp_path / "span.safetensors", network.state_dict()))


def test_pickles_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"4x.pth is a pickle.*refused; where you trust it, convert it with"):
        open_upscaler(tmp_path / "4x.pth")
    with pytest.raises(StorageError, match="does not exist"):
        open_upscaler(tmp_path / "none.safetensors")
    (tmp_path / "4x.onnx").touch()
    with pytest.raises(IncompatibleError, match=r"no \.safetensors file"):
        open_upscaler(tmp_path / "4x.onnx")
    whole = write_upscaler(tmp_path / "4x.safetensors", esrgan().state_dict())
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="not a whole safetensors file"):
        open_upscaler(whole)
