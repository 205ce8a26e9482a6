"""Our text encoder is transformers' CLIP, up to the layer that SDXL reads."""

from typing import Any

import pytest
import torch

from pocketxl.engine.architecture import TextOutput

from ...fixtures.compare import relative_error
from ...fixtures.networks import clip_pair
from ...tolerances import MODEL_RELATIVE

LARGEST, END = 98, 98


def _prompts() -> torch.Tensor:
    """Three prompts of different lengths: padded with the end token, with 0, and full to the last token."""
    ids = torch.randint(0, 97, (3, 77))
    ids[:, 0] = 97
    ids[0, 5:] = END
    ids[1, 20], ids[1, 21:] = END, 0
    ids[2, 76] = END
    return ids


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu"}, {"eos_token_id": 2}], ids=["quick", "gelu", "legacy"])
def test_hidden_states_and_pooled_output_are_those_of_transformers(changes: dict[str, Any]) -> None:
    torch.manual_seed(2)
    pair = clip_pair(pooled=True, **changes)
    ids = _prompts()
    theirs = pair.theirs(ids, output_hidden_states=True)
    hidden, pooled = pair.ours(ids)
    assert relative_error(hidden, theirs.hidden_states[-2]) < MODEL_RELATIVE
    assert relative_error(pooled, theirs.text_embeds) < MODEL_RELATIVE


def test_the_encoder_without_projection_gives_hidden_states_and_holds_no_last_layer() -> None:
    torch.manual_seed(3)
    pair = clip_pair(pooled=False)
    ids = _prompts()
    theirs = pair.theirs(ids, output_hidden_states=True).hidden_states[-2]
    assert relative_error(pair.ours(ids), theirs) < MODEL_RELATIVE
    names = set(pair.ours.state_dict())
    assert not any("layers.2." in name or "final_layer_norm" in name for name in names)
    assert {f"text_model.{name}" for name in pair.theirs.state_dict()} > names


@pytest.mark.parametrize("pooled", [False, True])
def test_the_last_layer_s_normed_states_where_a_model_reads_those(pooled: bool) -> None:
    torch.manual_seed(5)
    pair = clip_pair(pooled=pooled, output=TextOutput.LAST_NORMED)
    ids = _prompts()
    theirs = pair.theirs(ids)
    hidden, *rest = pair.ours(ids) if pooled else (pair.ours(ids),)
    assert relative_error(hidden, theirs.last_hidden_state) < MODEL_RELATIVE
    assert len(rest) == pooled
    for state in rest:
        assert relative_error(state, theirs.text_embeds) < MODEL_RELATIVE
