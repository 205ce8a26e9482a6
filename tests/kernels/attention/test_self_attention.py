from typing import Any

import pytest
import torch

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.attention import op as ops
from pocketxl.kernels.attention.op import attention, attention_int8, self_attention
from pocketxl.kernels.attention.plan import plan_attention, plan_attention_int8, plan_self_attention
from pocketxl.kernels.errors import UnsupportedShapeError

from ...fixtures.kernels import DEVICE
from .operands import operands, slices

GEFORCE = {86, 89, 120}
SHAPE: dict[str, Any] = {"batch": 2, "m": 300, "n": 300, "heads": 2, "q_stride": 384, "k_stride": 384, "v_stride": 384}


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_a_card_gets_the_form_that_it_computes_faster(sm: int) -> None:
    arch = architecture(sm)
    assert arch.half_sums is (sm in GEFORCE)
    made = plan_self_attention(**SHAPE, arch=arch)
    form = plan_attention_int8(**SHAPE, arch=arch, accumulate_half=True) if arch.half_sums else None
    same = form or plan_attention(**SHAPE, arch=arch)
    assert made.op == "self_attention"
    assert (made.launches, made.inputs, made.outputs, made.scratch) == (
        same.launches, same.inputs, same.outputs, same.scratch,
    )  # fmt: skip


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_bfloat16_is_summed_in_float32_everywhere(sm: int) -> None:
    launch = plan_self_attention(**SHAPE, arch=architecture(sm), dtype="bfloat16").launches[-1]
    assert not launch.constants.get("ACCUMULATE_HALF", False)


@pytest.fixture(params=[89, 90])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The interpreter in the place of such a card."""
    if DEVICE != "cpu":
        pytest.skip("a GPU is what it is")
    arch = architecture(request.param)
    monkeypatch.setattr(ops, "architecture_of", lambda _: arch)
    number: int = request.param
    return number


def test_it_is_that_op_to_the_bit(card: int) -> None:
    given = slices(operands(1, 70, 70, 2))
    half = card == 89
    expected = attention_int8(**given, heads=2, accumulate_half=True) if half else attention(**given, heads=2)
    assert torch.equal(self_attention(**given, heads=2), expected)


def test_on_a_processor_without_kernels_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: x.cpu() for name, x in operands(1, 70, 70, 2).items()}
    monkeypatch.setattr(ops, "runs_kernels", lambda _: False)
    assert torch.equal(self_attention(**given, heads=2), attention(**given, heads=2))
    assert execution.dtype_name(self_attention(**given, heads=2).dtype) == "float16"


def test_what_it_cannot_take_is_refused_by_its_own_name() -> None:
    given = operands(1, 4, 4, 2)
    with pytest.raises(UnsupportedShapeError, match=r"self_attention.*64 channels a head"):
        self_attention(**given, heads=3)
