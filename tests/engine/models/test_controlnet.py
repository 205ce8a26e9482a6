"""Our three parts of a ControlNet are diffusers' `ControlNetModel`, cut."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pocketxl.engine.companion import ControlNetArchitecture
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.controlnet import ControlNet, HintEncoder
from pocketxl.export.checkpoint.controlnet_configuration import controlnet_architecture

from ...fixtures.checkpoints import randomize
from ...fixtures.compare import relative_error
from ...fixtures.networks import UNETS, adopt, json_file, unet_inputs
from ...tolerances import MODEL_RELATIVE


@dataclass(frozen=True, kw_only=True)
class Cut:
    theirs: Any
    architecture: ControlNetArchitecture
    conditioner: Conditioner
    encoder: HintEncoder
    network: ControlNet


@pytest.fixture(params=["base", "miniature"], scope="module")
def cut(request: pytest.FixtureRequest) -> Cut:
    from diffusers import ControlNetModel

    torch.manual_seed(2)
    config = {k: v for k, v in UNETS[request.param].items() if k not in ("_class_name", "up_block_types")}
    theirs = ControlNetModel(**config, conditioning_embedding_out_channels=(4, 6, 8, 10)).eval().requires_grad_(False)
    randomize(theirs, seed=2)  # the convolutions that begin at zero too
    architecture = controlnet_architecture(json_file({**theirs.config, "_class_name": "ControlNetModel"}))
    weights = theirs.state_dict()
    return Cut(
        theirs=theirs,
        architecture=architecture,
        conditioner=adopt(Conditioner(architecture), weights),
        encoder=adopt(HintEncoder(architecture), weights),
        network=adopt(ControlNet(architecture), weights),
    )


def test_the_parameters_are_those_of_diffusers_each_in_one_of_the_three(cut: Cut) -> None:
    parts = [module.state_dict() for module in (cut.conditioner, cut.encoder, cut.network)]
    ours = {name: tuple(p.shape) for part in parts for name, p in part.items()}
    assert sum(map(len, parts)) == len(ours)
    assert ours == {name: tuple(p.shape) for name, p in cut.theirs.state_dict().items()}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 16), (13, 9)], ids=["square", "3:2", "odd"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_what_is_added_is_that_of_diffusers(cut: Cut, height: int, width: int, scale: float) -> None:
    inputs = unet_inputs(cut.architecture, 2, height, width)
    latents, picture = inputs.pop("latents"), torch.rand(2, 3, 8 * height, 8 * width)
    time_vectors, *key_values = cut.conditioner(**inputs)
    hint = cut.encoder(picture)
    conditions = {"text_embeds": inputs["pooled_prompt_embeds"], "time_ids": inputs["time_ids"]}
    for step, timestep in enumerate(inputs["timesteps"]):
        skips, middle = cut.theirs(
            latents,
            timestep,
            inputs["prompt_embeds"],
            picture,
            conditioning_scale=scale,
            added_cond_kwargs=conditions,
            return_dict=False,
        )
        ours = cut.network(latents, time_vectors[step], hint, torch.tensor([scale]), key_values)
        assert len(ours) == len(skips) + 1 == len(cut.architecture.network().outputs)
        for own, other in zip(ours, (*skips, middle), strict=True):
            assert relative_error(own, other) < MODEL_RELATIVE


def test_their_shapes_are_those_that_are_declared(cut: Cut) -> None:
    inputs = unet_inputs(cut.architecture, 1, 13, 9)
    latents = inputs.pop("latents")
    time_vectors, *key_values = cut.conditioner(**inputs)
    given = cut.network(latents, time_vectors[0], cut.encoder(torch.rand(1, 3, 104, 72)), torch.ones(1), key_values)
    for tensor, spec in zip(given, cut.architecture.network().outputs, strict=True):
        _, channels, *sides = spec.shape
        lengths = [-(-size // int(str(side).partition("/")[2] or 1)) for side, size in zip(sides, (13, 9), strict=True)]
        assert tuple(tensor.shape) == (1, channels, *lengths)
