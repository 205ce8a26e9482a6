"""Stressed checkpoints: the same network with channels of very different size; heavy tails: the same spread."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.outliers import KINDS, outliers
from benchmarks.random_checkpoint import Hardness, random_tensor, write_random
from benchmarks.stress import heavy_tails, stress, student_t

from ..tolerances import STRESSED_BY_POWER_OF_TWO, STRESSED_RELATIVE

Run = Callable[[Path], torch.Tensor]
UNET = "unet/diffusion_pytorch_model.safetensors"


def _unet(folder: Path) -> torch.Tensor:
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").double()
    torch.manual_seed(0)
    with torch.inference_mode():
        out: torch.Tensor = net(
            torch.randn(1, 4, 16, 16, dtype=torch.float64),
            torch.tensor([500.0], dtype=torch.float64),
            torch.randn(1, 7, net.config.cross_attention_dim, dtype=torch.float64),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, 96, dtype=torch.float64),
                "time_ids": torch.tensor([[128.0, 128, 0, 0, 128, 128]], dtype=torch.float64),
            },
        ).sample
    return out


def _text_encoder(folder: Path) -> torch.Tensor:
    from transformers import CLIPTextModelWithProjection

    net: Any = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").double()
    with torch.inference_mode():
        out: torch.Tensor = net(torch.arange(7)[None]).last_hidden_state
    return out


def _difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("run", [_unet, _text_encoder])
@pytest.mark.parametrize(("factor", "bound"), [(32.0, STRESSED_BY_POWER_OF_TWO), (100.0, STRESSED_RELATIVE)])
def test_a_stressed_network_is_the_same_network(
    tiny_folders: dict[str, Path], tmp_path: Path, run: Run, factor: float, bound: float
) -> None:
    """Both in float64: a power of two leaves the weights' bits, any other factor rounds them to float32 once."""
    stressed = stress(tiny_folders["base"], tmp_path / "stressed", factor=factor, share=0.05)
    assert _difference(run(tiny_folders["base"]), run(stressed)) < bound


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_stands_alone_and_both_of_its_sides_matter(
    tiny_folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    from safetensors.numpy import save_file

    source = tiny_folders["base"]
    stressed = stress(source, tmp_path / "stressed", factor=32, kinds=[kind])
    expected = _unet(source)
    assert _difference(expected, _unet(stressed)) < STRESSED_BY_POWER_OF_TWO
    old, new = load_file(source / UNET), load_file(stressed / UNET)
    grown = {name for name in old if np.abs(new[name]).sum() > np.abs(old[name]).sum()}
    assert grown
    save_file({name: new[name] if name in grown else old[name] for name in old}, stressed / UNET)
    assert _difference(expected, _unet(stressed)) > 1e3 * STRESSED_RELATIVE


def test_one_channel_at_least_grows_and_its_readers_shrink(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    source = tiny_folders["base"]
    stressed = stress(source, tmp_path / "stressed", factor=32, share=0.001, kinds=["norm"])
    old, new = load_file(source / UNET), load_file(stressed / UNET)
    (block,) = {
        name.removesuffix("norm3.weight") for name in old if "mid_block" in name and name.endswith("0.norm3.weight")
    }
    grown = np.flatnonzero(new[block + "norm3.weight"] != old[block + "norm3.weight"])
    assert len(grown) == 1
    for part in ("weight", "bias"):
        np.testing.assert_array_equal(new[block + f"norm3.{part}"][grown], 32 * old[block + f"norm3.{part}"][grown])
    column = old[block + "ff.net.0.proj.weight"].copy()
    column[:, grown] /= 32
    np.testing.assert_array_equal(new[block + "ff.net.0.proj.weight"], column)


def test_what_base_and_refiner_share_stays_shared(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    written = [stress(folder, tmp_path / kind, factor=30) for kind, folder in tiny_folders.items()]
    first, second = ((folder / "text_encoder_2/model.safetensors").read_bytes() for folder in written)
    assert first == second
    assert first != (tiny_folders["base"] / "text_encoder_2/model.safetensors").read_bytes()


def test_other_seeds_draw_other_channels_and_what_is_no_place_stays(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    source = tiny_folders["refiner"]
    old = load_file(source / UNET)
    first, same, second = (
        load_file(stress(source, tmp_path / str(i), factor=10, seed=seed) / UNET) for i, seed in enumerate((0, 0, 1))
    )
    assert all(np.array_equal(first[name], same[name]) for name in old)
    assert any(not np.array_equal(first[name], second[name]) for name in old)
    assert all(np.array_equal(first[name], old[name]) for name in old if "resnets" in name or "time_emb" in name)
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "0" / vae).read_bytes() == (source / vae).read_bytes()


@pytest.mark.parametrize("wrong", [{"kinds": ["gelu"]}, {"share": 0.0}, {"share": 2.0}, {"factor": 0.0}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kinds|share"):
        outliers({}, **{"factor": 10.0, **wrong})


def test_a_folder_is_never_written_over(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        stress(tiny_folders["base"], tmp_path, factor=10)


def test_heavy_tails_have_the_old_spread_and_more_extremes(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    source = tiny_folders["base"]
    old, new = (load_file(f / UNET) for f in (source, heavy_tails(source, tmp_path / "tails")))
    assert [n for n in old if new[n].dtype != old[n].dtype or new[n].shape != old[n].shape] == []
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {name for name in old if old[name].ndim == 2 and name.endswith(".weight")}
    name = max(changed, key=lambda n: old[n].size)
    assert new[name].std() == pytest.approx(old[name].std(), rel=0.2)  # the variance of such variances is infinite
    assert np.abs(new[name]).max() > 3 * np.abs(old[name]).max()


def test_student_s_t_has_the_distribution_s_quantiles() -> None:
    """Against scipy's own: of standard deviation 1, since 3 degrees of freedom have a variance of 3."""
    from scipy import stats

    drawn = student_t(np.random.default_rng(0), (1000, 500), 1.0)
    assert stats.kstest(drawn.ravel() * np.sqrt(3), stats.t(3).cdf).pvalue > 0.01
    with pytest.raises(ValueError, match="degrees"):
        student_t(np.random.default_rng(0), (2,), 1.0, degrees=2)


def test_random_checkpoints_can_have_tails_and_outliers(tmp_path: Path) -> None:
    block = "mid_block.attentions.0.transformer_blocks.0."
    shapes = {
        block + "norm3.weight": (200,),
        block + "norm3.bias": (200,),
        block + "ff.net.0.proj.weight": (800, 200),
        "conv_in.weight": (200, 4, 3, 3),
    }
    plain = {name: random_tensor(name, shape) for name, shape in shapes.items()}
    write_random(tmp_path / "hard", shapes, Hardness(tails="linear", outliers=30))
    hard = load_file(tmp_path / "hard")
    assert sorted(hard[block + "norm3.weight"])[-3:] == [1, 30, 30]
    np.testing.assert_array_equal(hard["conv_in.weight"], plain["conv_in.weight"].astype(np.float16))
    spread = {
        name: np.abs(w).max() / w.std()
        for name, w in (
            (n, d[block + "ff.net.0.proj.weight"].astype(np.float32)) for n, d in (("hard", hard), ("plain", plain))
        )
    }
    assert spread["hard"] > 3 * spread["plain"]
    write_random(tmp_path / "all", {"conv_in.weight": (200, 4, 3, 3)}, Hardness(tails="all"))
    assert np.abs(load_file(tmp_path / "all")["conv_in.weight"]).max() > 2 * np.abs(plain["conv_in.weight"]).max()
    write_random(tmp_path / "plain", shapes)
    for name, values in load_file(tmp_path / "plain").items():
        np.testing.assert_array_equal(values, plain[name].astype(np.float16))
