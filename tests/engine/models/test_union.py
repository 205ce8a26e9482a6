"""Our parts of a ControlNet-Union are diffusers' `ControlNetUnionModel`, cut."""

from typing import Any

import pytest
import torch

from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.controlnet import ControlNet
from pocketxl.engine.models.union import UnionHintEncoder
from pocketxl.export.checkpoint.controlnet_configuration import controlnet_architecture

from ...fixtures.checkpoints import randomize
from ...fixtures.compare import relative_error
from ...fixtures.networks import UNETS, adopt, json_file, unet_inputs
from ...tolerances import MODEL_RELATIVE

KINDS, WIDTH = 6, 32
ONE, SEVERAL = ((3, 0.7),), ((3, 0.7), (1, 0.4), (0, 0.0))
"""Kind and scale of each hint; one that is at rest is there as in diffusers."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    from diffusers import ControlNetUnionModel

    config = {k: v for k, v in UNETS["base"].items() if k not in ("_class_name", "up_block_types")}
    own = {"num_control_type": KINDS, "num_trans_channel": WIDTH, "num_proj_channel": WIDTH, "num_trans_layer": 2}
    module = ControlNetUnionModel(**config, **own, conditioning_embedding_out_channels=(4, 6, 8, 10))
    randomize(module.eval().requires_grad_(False), seed=5)
    return module


def ours(theirs: Any) -> tuple[UnionHintEncoder, Conditioner, ControlNet]:
    architecture = controlnet_architecture(json_file({**theirs.config, "_class_name": "ControlNetUnionModel"}))
    weights = dict(theirs.state_dict())
    weights["task_embedding.weight"] = weights.pop("task_embedding")
    for name in [name for name in weights if ".in_proj_" in name]:
        weights[name.replace("in_proj_", "value.")] = weights.pop(name).chunk(3)[2]
    return (
        adopt(UnionHintEncoder(architecture), weights),
        adopt(Conditioner(architecture, control_types=KINDS), weights),
        adopt(ControlNet(architecture), weights),
    )


@pytest.mark.parametrize("hints", [ONE, SEVERAL], ids=["one hint", "three hints"])
def test_what_is_added_is_that_of_diffusers(theirs: Any, hints: tuple[tuple[int, float], ...]) -> None:
    encoder, conditioner, network = ours(theirs)
    architecture = controlnet_architecture(json_file({**theirs.config, "_class_name": "ControlNetUnionModel"}))
    inputs = unet_inputs(architecture, 1, 13, 9)
    latents, pictures = inputs.pop("latents"), [torch.rand(1, 3, 104, 72) for _ in hints]
    kinds = torch.zeros(1, KINDS)
    kinds[0, [kind for kind, _ in hints]] = 1
    time_vectors, *key_values = conditioner(**inputs, control_type=kinds)
    alone = len(hints) == 1
    hint = torch.stack(
        [
            encoder(picture, torch.tensor([kind]), torch.tensor([1.0 if alone else scale]))
            for picture, (kind, scale) in zip(pictures, hints, strict=True)
        ]
    ).sum(0)
    own = network(latents, time_vectors[1], hint, torch.tensor([hints[0][1] if alone else 1.0]), key_values)
    # Two rows of one picture, as under guidance: there the transformer looks from one to the other.
    twice = {name: torch.cat([tensor] * 2) for name, tensor in inputs.items() if name != "timesteps"}
    skips, middle = theirs(
        torch.cat([latents] * 2),
        inputs["timesteps"][1],
        twice["prompt_embeds"],
        [torch.cat([picture] * 2) for picture in pictures],
        torch.cat([kinds] * 2),
        [kind for kind, _ in hints],
        conditioning_scale=[scale for _, scale in hints],
        added_cond_kwargs={"text_embeds": twice["pooled_prompt_embeds"], "time_ids": twice["time_ids"]},
        return_dict=False,
    )
    for mine, other in zip(own, (*skips, middle), strict=True):
        for row in other:
            assert relative_error(mine[0], row) < MODEL_RELATIVE


def test_a_hint_of_another_kind_is_another(theirs: Any) -> None:
    encoder, picture = ours(theirs)[0], torch.rand(1, 3, 64, 64)
    first, second = (encoder(picture, torch.tensor([kind]), torch.ones(1)) for kind in (0, 5))
    assert relative_error(first, second) > 1e-2
