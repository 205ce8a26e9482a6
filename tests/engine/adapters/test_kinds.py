"""The kinds of LyCORIS: what our pairs add to a layer is what lycoris-lora's own modules add."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pocketxl.engine.adapters.layers import Layer
from pocketxl.engine.adapters.read import read_lora
from pocketxl.engine.errors import IncompatibleError

from ...fixtures.adapters import base_layers, delta, fixed, miniature_models, write

MODELS = miniature_models()
LAYERS = {layer.name: layer for layer in base_layers(MODELS)}
LINEAR = LAYERS["mid_block.attentions.0.transformer_blocks.0.ff.net.2"]
CONV = LAYERS["down_blocks.0.resnets.0.conv1"]

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"lora_dim": 4, "alpha": 2}),
    ("locon", {"lora_dim": 4, "alpha": 1, "use_tucker": True}),
    ("loha", {"lora_dim": 4, "alpha": 2}),
    ("loha", {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    ("lokr", {"lora_dim": 2, "alpha": 1, "factor": 4}),
    ("lokr", {"lora_dim": 2, "alpha": 1, "factor": 8, "decompose_both": True}),
    ("lokr", {"lora_dim": 4, "alpha": 3, "factor": 4, "use_tucker": True}),
]


def module_of(layer: Layer) -> nn.Module:
    if not layer.kernel:
        return nn.Linear(layer.in_channels, layer.out_channels)
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, padding=1)  # type: ignore[arg-type]


def ours(tmp_path: Path, tensors: dict[str, Tensor], layer: Layer) -> tuple[Tensor, float]:
    found = read_lora(write(tmp_path / "a.safetensors", tensors), MODELS)
    return delta(found.pairs[layer.component][layer.name]), found.error


@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize(("algorithm", "options"), KINDS, ids=str)
def test_low_kinds_are_exact(tmp_path: Path, algorithm: str, options: dict[str, Any], layer: Layer) -> None:
    name = f"lora_unet_{layer.name.replace('.', '_')}"
    tensors, expected = fixed(name, module_of(layer), algorithm, **options)
    if "lokr" in algorithm and options.get("use_tucker") and layer is CONV:
        assert f"{name}.lokr_t2" in tensors
    found, error = ours(tmp_path, tensors, layer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert error == 0


def test_a_full_difference_of_low_rank_is_exact(tmp_path: Path) -> None:
    full = torch.randn(CONV.out_channels, 5) @ torch.randn(5, CONV.columns)
    name = f"lora_unet_{CONV.name.replace('.', '_')}"
    shaped = full.reshape(CONV.out_channels, CONV.in_channels, 3, 3)
    found = read_lora(write(tmp_path / "a.safetensors", {f"{name}.diff": shaped}), MODELS)
    pair = found.pairs["base/unet"][CONV.name]
    assert (pair.rank, found.error) == (5, 0)
    torch.testing.assert_close(delta(pair), shaped, rtol=1e-4, atol=1e-4)


def test_what_is_nearly_of_low_rank_is_approximated_and_its_error_told(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, columns = LINEAR.out_channels, LINEAR.in_channels
    low = torch.randn(rows, 8, generator=draw) @ torch.randn(8, columns, generator=draw)
    full = low + 0.1 * torch.randn(rows, columns, generator=draw)
    name = f"lora_unet_{LINEAR.name.replace('.', '_')}"
    found, error = ours(tmp_path, {f"{name}.diff": full}, LINEAR)
    true = float((found - full).norm() / full.norm())
    assert error == pytest.approx(true, rel=1e-3)
    assert 0.005 < error < 0.05


def test_what_is_not_of_low_rank_is_refused_with_its_error(tmp_path: Path) -> None:
    name = f"lora_unet_{LINEAR.name.replace('.', '_')}"
    full = torch.randn(LINEAR.out_channels, LINEAR.in_channels)
    with pytest.raises(IncompatibleError, match=r"not of low rank: pairs of rank 128 miss \d+%"):
        ours(tmp_path, {f"{name}.diff": full}, LINEAR)


def test_an_approximation_by_lokr_keeps_the_greatest_directions(tmp_path: Path) -> None:
    """More than 128 directions, whose strength falls: the best 128 are those of the whole product."""
    draw = torch.Generator().manual_seed(1)
    rows, columns = LINEAR.out_channels, LINEAR.in_channels
    first = torch.randn(8, 8, generator=draw)
    u, s, v = torch.linalg.svd(torch.randn(rows // 8, columns // 8, generator=draw), full_matrices=False)
    second = u @ torch.diag(s * 0.7 ** torch.arange(len(s))) @ v
    full = torch.kron(first, second)
    name = f"lora_unet_{LINEAR.name.replace('.', '_')}"
    found, error = ours(tmp_path, {f"{name}.lokr_w1": first, f"{name}.lokr_w2": second}, LINEAR)
    best = torch.linalg.svdvals(full)
    # As few directions are kept as 1 % of error asks for: the next fewer would be beyond.
    left = (best.square().flip(0).cumsum(0).flip(0).sqrt() / full.norm()).tolist()
    assert error == pytest.approx(float((found - full).norm() / full.norm()), rel=1e-2)
    assert 0 < error <= 0.01
    rank = next(i for i, share in enumerate(left) if share <= 0.01)
    assert int(torch.linalg.matrix_rank(found, rtol=1e-5)) == rank


REFUSED = {
    "a DoRA": ("lora", {"weight_decompose": True}),
    r"an \(IA\)³": ("ia3", {}),
    "an OFT or BOFT": ("diag-oft", {}),
    "a GLoRA": ("glora", {}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_kinds_that_need_the_models_own_weights_are_refused_in_words(tmp_path: Path, what: str) -> None:
    algorithm, options = REFUSED[what]
    name = f"lora_unet_{LINEAR.name.replace('.', '_')}"
    tensors, _ = fixed(name, module_of(LINEAR), algorithm, lora_dim=4, alpha=2, **options)
    with pytest.raises(IncompatibleError, match=f"is {what}.*merge it into the checkpoint"):
        ours(tmp_path, tensors, LINEAR)
