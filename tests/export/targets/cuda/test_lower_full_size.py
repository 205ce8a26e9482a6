"""The steps of the published U-Nets are the layers of `kernels.sdxl_layers`, one for one, in every attribute."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketxl.engine.architecture import SizeIds
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.program.sizes import Sizes
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.graph.master import export_master
from pocketxl.export.targets.cuda.lower import steps_of
from pocketxl.export.targets.cuda.steps import Attention, Conv, GroupNorm, LayerNorm, Linear, Step, Steps
from pocketxl.kernels import sdxl_layers

from ....fixtures.networks import json_file

CONFIGS = Path(__file__).parents[4] / "export" / "checkpoint" / "configs"
IDS = {"base": SizeIds.SIZE_CROP_TARGET, "refiner": SizeIds.SIZE_CROP_SCORE}
# How the layers are called by what they do → the end of their state-dict name.
ROLES = {
    "in": "conv_in",
    "out": "conv_out",
    "down": "downsamplers.0.conv",
    "up": "upsamplers.0.conv",
    "conv1": "conv1",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
    "proj_in": "proj_in",
    "qkv": "attn1.to_q+to_k+to_v",
    "self_out": "attn1.to_out.0",
    "q": "attn2.to_q",
    "cross_out": "attn2.to_out.0",
    "ff_in": "ff.net.0.proj",
    "ff_out": "ff.net.2",
    "proj_out": "proj_out",
}


@pytest.fixture(scope="module", params=IDS)
def network(request: pytest.FixtureRequest) -> tuple[Any, Steps]:
    """A published U-Net's name and steps."""
    config = json_file(json.loads((CONFIGS / request.param / "unet" / "config.json").read_text()))
    architecture = unet_architecture(config, IDS[request.param])
    master = export_master("unet", lambda: UNet(architecture), architecture.unet(), dtype=torch.float16)
    return request.param, steps_of(master)


def role(step: Linear | Conv) -> str:
    (found,) = (role for role, end in ROLES.items() if f".{step.out}".endswith(f".{end}"))
    return found


def as_layers(step: Step, sizes: Sizes) -> Iterator[sdxl_layers.Layer]:
    """A step in the terms of that list, which concatenates as a layer of its own, before the norm."""
    batch = sizes["batch"]
    match step:
        case Conv():
            yield sdxl_layers.Conv(
                role=role(step),
                batch=batch,
                height=sizes[f"height{step.level}"],
                width=sizes[f"width{step.level}"],
                c_in=step.c + step.c2,
                c_out=step.n,
                c_kept=step.c2,
                kernel=step.kernel,
                stride=step.stride,
                upsample_to=None
                if step.upsample_to is None
                else (sizes[f"height{step.upsample_to}"], sizes[f"width{step.upsample_to}"]),
                time=step.time is not None,
                residual=step.residual is not None,
            )
        case GroupNorm():
            if step.x2 is not None:
                yield sdxl_layers.Concatenate(pixels=sizes[f"rows{step.level}"], channels=(step.c, step.c2))
            yield sdxl_layers.GroupNorm(
                batch=batch,
                height=sizes[f"height{step.level}"],
                width=sizes[f"width{step.level}"],
                channels=step.c + step.c2,
                groups=step.groups,
                silu=step.silu,
                eps=step.eps,
            )
        case Linear():
            gated = step.activation == "geglu"
            assert gated or step.activation is None
            yield sdxl_layers.Linear(
                role=role(step),
                rows=sizes[f"rows{step.place.level}"],
                k=step.k,
                n=step.n // 2 if gated else step.n,
                bias=step.bias,
                residual=step.residual is not None,
                gated=gated,
            )
        case LayerNorm():
            yield sdxl_layers.LayerNorm(rows=sizes[f"rows{step.place.level}"], channels=step.c, eps=step.eps)
        case Attention():
            assert step.head_dim == sdxl_layers.HEAD_DIM
            assert not step.causal
            cross = step.keys.rows == "texts"
            yield sdxl_layers.Attention(
                batch=batch,
                heads=step.heads,
                queries=sizes[f"pixels{step.place.level}"],
                keys=sizes["tokens" if cross else f"pixels{step.keys.level}"],
                cross=cross,
            )


@pytest.mark.parametrize(("height", "width", "batch"), [(1024, 1024, 2), (1000, 1016, 1)], ids=["square", "odd"])
def test_steps_are_the_layers_of_the_architecture(
    network: tuple[Any, Steps], height: int, width: int, batch: int
) -> None:
    name, steps = network
    sizes = Sizes(batch=batch, height=height // 8, width=width // 8)
    found = [layer for step in steps.steps for layer in as_layers(step, sizes)]
    assert found == list(sdxl_layers.layers(name, height=height, width=width, batch=batch))


def test_what_comes_from_outside_is_read_in_order(network: tuple[Any, Steps]) -> None:
    _, steps = network
    times = [step.time for step in steps.steps if isinstance(step, Conv) and step.time is not None]
    assert times == [f"time_vectors.{i}" for i in range(len(times))]
    cross = [step for step in steps.steps if isinstance(step, Attention) and step.keys.rows == "texts"]
    assert [(step.k, step.v) for step in cross] == [
        (f"key_values.{i}.key", f"key_values.{i}.value") for i in range(len(cross))
    ]
    assert steps.outputs == {"prediction": ("conv_out",)}


def test_a_value_is_made_before_it_is_read(network: tuple[Any, Steps]) -> None:
    _, steps = network
    made: set[str | None] = {"latents", None}
    for step in steps.steps:
        read: set[str | None]
        match step:
            case Attention(q=tuple(q), k=tuple(k), v=tuple(v)):
                read = {q[0], k[0], v[0]}
            case Attention(q=str(q)):  # keys and values come from outside
                read = {q}
            case Conv() | GroupNorm():
                read = {step.x, step.x2}
            case Linear() | LayerNorm():
                read = {step.x}
        assert read | {getattr(step, "residual", None)} <= made, step
        assert step.out not in made
        made.add(step.out)
