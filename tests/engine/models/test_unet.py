"""Our U-Net and conditioner are diffusers' `UNet2DConditionModel`, cut in two."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from ...fixtures.compare import relative_error
from ...fixtures.networks import UNETS, UNetPair, unet_inputs, unet_pair
from ...tolerances import MODEL_RELATIVE


@pytest.fixture(params=UNETS, scope="module")
def pair(request: pytest.FixtureRequest) -> UNetPair:
    torch.manual_seed(1)
    return unet_pair(request.param)


def test_the_parameters_are_those_of_diffusers_each_in_one_of_the_two(pair: UNetPair) -> None:
    theirs = {name: tuple(p.shape) for name, p in pair.theirs.state_dict().items()}
    conditioner = {name: tuple(p.shape) for name, p in pair.conditioner.state_dict().items()}
    unet = {name: tuple(p.shape) for name, p in pair.unet.state_dict().items()}
    assert not set(conditioner) & set(unet)
    assert {**conditioner, **unet} == theirs


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 16), (13, 9)], ids=["square", "3:2", "odd"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_prediction_is_that_of_diffusers(pair: UNetPair, batch: int, height: int, width: int) -> None:
    inputs = unet_inputs(pair.architecture, batch, height, width)
    latents = inputs.pop("latents")
    time_vectors, *key_values = pair.conditioner(**inputs)
    assert time_vectors.shape == (3, batch, sum(pair.architecture.resnet_widths()))
    assert [tuple(t.shape[2:]) for t in key_values] == [t.shape[2:] for t in pair.architecture.key_values()]
    conditions = {"text_embeds": inputs["pooled_prompt_embeds"], "time_ids": inputs["time_ids"]}
    embedded = None
    if width_of_guidance := pair.architecture.time_cond_proj_dim:
        make = StableDiffusionXLPipeline.get_guidance_scale_embedding
        embedded = make(SimpleNamespace(), inputs["guidance"], embedding_dim=width_of_guidance)
    for step, timestep in enumerate(inputs["timesteps"]):
        theirs = pair.theirs(
            latents, timestep, inputs["prompt_embeds"], timestep_cond=embedded, added_cond_kwargs=conditions
        ).sample
        ours = pair.unet(latents, time_vectors[step], key_values)
        assert relative_error(ours, theirs) < MODEL_RELATIVE
