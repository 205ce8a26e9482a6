"""A torch generator does what diffusers does with it: noise is drawn from it, and its state moves."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pocketxl.engine.pipeline import Pipeline

from ..fixtures.checkpoints import SCHEDULER
from ..fixtures.schedulers import make_scheduler
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "num_images_per_prompt": 2, "height": 64, "width": 64,
    "num_inference_steps": 5, "output_type": "np",
}  # fmt: skip


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("sampler", ["euler", "euler_a"])  # the second draws at every step
@pytest.mark.parametrize("several", [False, True])
def test_two_calls_with_the_same_generators(pipe: Pipeline, experts: "Experts", sampler: str, several: bool) -> None:
    ours: Any = seeded(4, 9) if several else seeded(4)[0]
    theirs: Any = seeded(4, 9) if several else seeded(4)[0]
    for turn in range(2):
        made = pipe(**CALL, generator=ours, sampler=sampler, refiner=False)
        experts.base.scheduler = make_scheduler(sampler, "default", dict(SCHEDULER))
        expected = experts.base(**CALL, generator=theirs, guidance_scale=5.0).images
        assert np.abs(made.images - expected).mean() <= PICTURE_MEAN, turn
        assert np.abs(made.images[0] - made.images[1]).mean() > PICTURE_CHANGE
        assert made.seeds == ((4, 9) if several and turn == 0 else (None, None))
    state = [g.get_state() for g in (ours if several else [ours])]
    assert all(torch.equal(a, b.get_state()) for a, b in zip(state, theirs if several else [theirs], strict=True))


def test_a_fresh_generator_is_its_seed(pipe: Pipeline) -> None:
    one = CALL | {"num_images_per_prompt": 1}
    drawn = pipe(**one, generator=seeded(7)[0])
    assert drawn.seeds == (7,)
    assert np.abs(drawn.images - pipe(**one, seed=7).images).mean() <= PICTURE_MEAN
