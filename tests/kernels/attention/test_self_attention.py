from typing import Any

import pytest
import torch

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.attention import op as ops
from pocketxl.kernels.attention.op import attention, attention_int8, self_attention
from pocketxl.kernels.attention.plan import plan_attention, plan_attention_int8, plan_self_attention
from pocketxl.kernels.attention.reference import attention_ref, self_attention_ref
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.quantize.reference import narrowed_ref

from ...fixtures.kernels import DEVICE
from ...tolerances import INT8_ATTENTION_RELATIVE
from ..steps import assert_steps
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


@pytest.mark.parametrize("tokens", [64, 70, 300])
def test_the_result_in_8_bits(card: int, tokens: int) -> None:
    given = slices(operands(1, tokens, tokens, 2))
    inverse = torch.linspace(50, 900, 128, device=DEVICE) * tokens**0.5 / 8
    truth = self_attention_ref(**given, heads=2, inverse=inverse)
    value = self_attention(**given, heads=2, inverse=inverse)
    assert value.dtype == torch.int8
    # 8-bit scores are a percent off, which moves what is many steps by some.
    if card == 89:
        assert (value.double() - truth).norm() / truth.norm() < INT8_ATTENTION_RELATIVE
        return
    assert_steps(value, truth)
    prompt: dict[str, Any] = {"q": given["q"], "k": given["k"][:, :20], "v": given["v"][:, :20]}
    assert_steps(attention(**prompt, heads=2, inverse=inverse), attention_ref(**prompt, heads=2, inverse=inverse))


def test_8_bits_are_those_of_the_result_in_halves(card: int) -> None:
    given = slices(operands(1, 130, 130, 1))
    inverse = torch.full((64,), 400.0, device=DEVICE)
    halves = self_attention(**given, heads=1)
    assert_steps(self_attention(**given, heads=1, inverse=inverse), narrowed_ref(halves.double(), inverse), moved=0.1)


def test_on_a_processor_without_kernels_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: x.cpu() for name, x in operands(1, 70, 70, 2).items()}
    monkeypatch.setattr(ops, "runs_kernels", lambda _: False)
    assert torch.equal(self_attention(**given, heads=2), attention(**given, heads=2))
    inverse = torch.full((128,), 100.0)
    expected = narrowed_ref(attention(**given, heads=2).double(), inverse).to(torch.int8)
    for op in (self_attention, attention):
        assert torch.equal(op(**given, heads=2, inverse=inverse), expected)
    assert attention_int8(**given, heads=2, inverse=inverse).dtype == torch.int8
    assert execution.dtype_name(self_attention(**given, heads=2).dtype) == "float16"


def test_what_it_cannot_take_is_refused_by_its_own_name() -> None:
    given = operands(1, 4, 4, 2)
    with pytest.raises(UnsupportedShapeError, match=r"self_attention.*64 channels a head"):
        self_attention(**given, heads=3)
