"""Our T2I adapter is diffusers', and an opened U-Net adds its features where diffusers' U-Net adds them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketxl.engine.companion import residuals
from pocketxl.engine.models.t2i_adapter import T2IAdapter
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.t2i_adapter import FEATURES, T2IAdapterArchitecture, feature_places
from pocketxl.export.graph.master import export_master
from pocketxl.export.graph.openings import Row, open_graph

from ...fixtures.compare import relative_error
from ...fixtures.networks import adopt, unet_inputs, unet_pair
from ...fixtures.onnx_run import run_onnx
from ...fixtures.t2i_adapters import tiny_adapter
from ...tolerances import MODEL_RELATIVE

WIDTHS = (32, 64, 128, 128)


@pytest.mark.parametrize(("channels", "widths", "layers"), [(3, WIDTHS, 2), (1, (64, 128), 1)], ids=["sdxl's", "grey"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)], ids=["square", "odd"])
def test_features_are_those_of_diffusers(
    channels: int, widths: tuple[int, ...], layers: int, height: int, width: int, tmp_path: Path
) -> None:
    theirs = tiny_adapter(in_channels=channels, channels=list(widths), num_res_blocks=layers)
    architecture = T2IAdapterArchitecture(hint_channels=channels, widths=widths, layers=layers)
    ours, picture = adopt(T2IAdapter(architecture), theirs.state_dict()), torch.rand(1, channels, height, width)
    assert {*ours.state_dict()} == {*theirs.state_dict()}
    expected = theirs(picture)
    for own, other in zip(ours(picture), expected, strict=True):
        assert relative_error(own, other) < MODEL_RELATIVE
    spec = architecture.encoder()
    master = export_master("t2i_adapter/encoder", lambda: T2IAdapter(architecture), spec)
    found = run_onnx(master, theirs.state_dict(), {"image": picture.numpy()}, tmp_path)
    for own, other in zip(found, expected, strict=True):
        assert relative_error(torch.from_numpy(own), other) < MODEL_RELATIVE


def test_the_places_are_those_of_sdxl() -> None:
    pair = unet_pair("base")
    assert feature_places(pair.architecture) == ((32, 1), (64, 1), (128, 2), (128, 2))
    assert T2IAdapterArchitecture(widths=WIDTHS).misfits(pair.architecture) is None
    assert T2IAdapterArchitecture(widths=WIDTHS[:3]).misfits(pair.architecture) is None, "none for the middle"
    wrong = T2IAdapterArchitecture(widths=(320, 640, 1280, 1280)).misfits(pair.architecture)
    assert wrong is not None
    assert wrong.startswith("it adds 320 channels at 1/16, 640 channels at 1/16")


@pytest.mark.parametrize("kind", ["base", "miniature", "pruned"])
@pytest.mark.parametrize("steered", [False, True], ids=["alone", "with a ControlNet"])
def test_they_are_added_where_diffusers_adds_them(kind: str, steered: bool, tmp_path: Path) -> None:
    pair = unet_pair(kind)
    a, (height, width) = pair.architecture, (12, 8)
    spec = a.unet()
    master = export_master("unet", lambda: UNet(a), spec)
    open_graph(master.graph, spec, Row(file="x", groups=(), seams=("features", "residuals")))
    inputs = unet_inputs(a, 1, height, width)
    latents, timestep = inputs.pop("latents"), inputs["timesteps"][1]
    time_vectors, *key_values = pair.conditioner(**inputs)

    def of_size(channels: Any, halvings: int) -> torch.Tensor:
        return torch.randn(1, int(channels), height >> halvings, width >> halvings)

    features = [of_size(*place) for place in feature_places(a)]
    added = [of_size(t.shape[1], int(str(t.shape[2]).partition("/")[2] or 1).bit_length() - 1) for t in residuals(a)]
    more = {"down_block_additional_residuals": added[:-1], "mid_block_additional_residual": added[-1]}
    theirs = pair.theirs(
        latents,
        timestep,
        inputs["prompt_embeds"],
        added_cond_kwargs={"text_embeds": inputs["pooled_prompt_embeds"], "time_ids": inputs["time_ids"]},
        down_intrablock_additional_residuals=[feature.clone() for feature in features],
        **(more if steered else {}),
    ).sample
    nothing = [tensor[:0] for tensor in added]
    feeds = {
        "latents": latents,
        "time_vectors": time_vectors[1],
        **{tensor.name: value for tensor, value in zip(a.key_values(), key_values, strict=True)},
        **{f"{FEATURES}.{i}": feature for i, feature in enumerate(features)},
        **{f"residuals.{i}": tensor for i, tensor in enumerate(added if steered else nothing)},
    }
    (ours,) = run_onnx(master, pair.unet.state_dict(), {name: value.numpy() for name, value in feeds.items()}, tmp_path)
    plain = pair.unet(latents, time_vectors[1], key_values)
    assert relative_error(torch.from_numpy(ours), theirs) < MODEL_RELATIVE
    assert relative_error(plain, theirs) > 1e-3
    assert np.isfinite(ours).all()
