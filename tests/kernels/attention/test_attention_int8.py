from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.attention import plan as planning
from pocketxl.kernels.attention.op import attention_int8
from pocketxl.kernels.attention.reference import attention_int8_ref, quantized_keys, quantized_queries
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned
from ...tolerances import INT8_ATTENTION_RELATIVE, INT8_ATTENTION_STEPS
from .operands import configurations, operands, sdpa, slices, truth_of

SM89 = architecture(89)


def relative(value: Tensor, truth: Tensor) -> float:
    return float((value.double() - truth).norm() / truth.norm())


def everything(given_: dict[str, Tensor], heads: int, *, accumulate_half: bool = False) -> dict[str, Tensor]:
    """The result, and what lies between the kernels; from poisoned memory."""
    (batch, m, _), n = given_["q"].shape, given_["k"].shape[1]
    plan = planning.plan_attention_int8(
        batch=batch, m=m, n=n, heads=heads, arch=architecture_of(given_["q"]), accumulate_half=accumulate_half
    )
    return execute(replace(plan, outputs={**plan.outputs, **plan.scratch}, scratch={}), given_, allocate=poisoned)


def whole_numbers(m: int, n: int, heads: int, seed: int) -> dict[str, Tensor]:
    """Operands that 8 bits hold exactly, with scales of 1.

    A largest element of 127 that meets only zeros, keys that sum to 0, else small integers; so that one unit of a score
    moves a share by 13 %.
    """
    random = torch.Generator().manual_seed(seed)
    q = torch.randint(-3, 4, (1, m, heads, 64), generator=random)
    half = torch.randint(-3, 4, (1, n // 2, heads, 64), generator=random)
    half[..., 0], half[..., 1] = 0, 127
    k = torch.stack((half, -half), 2).flatten(1, 2)  # (1, n, …), n even
    q[..., 0], q[..., 1] = 127, 0
    v = torch.randn(1, n, heads, 64, generator=random)
    return {name: x.half().flatten(2).to(DEVICE) for name, x in (("q", q), ("k", k), ("v", v))}


@pytest.mark.parametrize(
    ("batch", "m", "n", "heads", "accumulate_half"),
    [
        (2, 64, 64, 3, False),
        (1, 77, 130, 2, True),
        (1, 5, 300, 1, False),
        (2, 1, 1, 2, True),
        (1, 3, 1023, 1, True),
    ],
)
def test_error_on_normal_data(batch: int, m: int, n: int, heads: int, accumulate_half: bool) -> None:
    given_ = operands(batch, m, n, heads)
    value = everything(given_, heads, accumulate_half=accumulate_half)["out"]
    assert value.shape == given_["q"].shape
    assert relative(value, truth_of(**given_, heads=heads)) < INT8_ATTENTION_RELATIVE
    # Nearly all of it is the quantization; what comes after is as exact as the 16-bit kernel.
    assert (
        relative(value, attention_int8_ref(given_["q"], given_["k"], given_["v"], heads)) < INT8_ATTENTION_RELATIVE / 10
    )


@settings(max_examples=5, deadline=None)
@given(m=st.integers(1, 70), n=st.integers(1, 100).map(lambda half: 2 * half))
def test_what_8_bits_hold_exactly_is_as_good_as_torch_in_float16(m: int, n: int) -> None:
    given_ = whole_numbers(m, n, 1, seed=m * n)
    made = everything(given_, 1)
    assert (made["key_scale"] == 1).all()
    assert_as_good_as_torch(made["out"], sdpa(**given_, heads=1), truth_of(**given_, heads=1))


@pytest.mark.parametrize("config", configurations("attention_int8"), ids=str)
@pytest.mark.parametrize("n", [96, 200])
def test_every_configuration(config: dict[str, int], n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planning.KEY_BLOCK % config["BLOCK_N"] == 0
    monkeypatch.setattr(planning, "lookup", lambda *_, **__: config)
    given_ = whole_numbers(70, n, 1, seed=n)
    assert_as_good_as_torch(everything(given_, 1)["out"], sdpa(**given_, heads=1), truth_of(**given_, heads=1))


@pytest.mark.parametrize(("n", "heads"), [(64, 3), (77, 2), (300, 1)])
def test_keys_are_quantized_as_stated(n: int, heads: int) -> None:
    given_ = operands(2, 1, n, heads)
    given_["k"] = given_["k"] + 5 * torch.randn(heads * 64, device=DEVICE).half()
    made = everything(given_, heads)
    keys, scale = quantized_keys(given_["k"], heads)
    assert torch.allclose(made["key_scale"].flatten(), scale.flatten(), rtol=1e-4)
    steps = (made["keys"].view_as(keys).int() - keys.int()).abs()
    # A mean that is summed in another order moves what lies between two integers.
    assert steps.max() <= 1
    assert (steps > 0).double().mean() < INT8_ATTENTION_STEPS
    assert (made["keys"].flatten(0, 1)[:, n:] == 0).all()
    assert (made["keys"].view_as(keys).int().abs().amax((-1, -2)) == 127).all()


def test_halves_round_to_even() -> None:
    whole, scale = quantized_queries(torch.tensor([127.0, 0.5, 1.5, -2.5, 3.5] + [0.0] * 59)[None, None], 1)
    assert whole.flatten()[:5].tolist() == [127, 0, 2, -2, 4]
    assert scale.item() == 1
    given_ = operands(1, 1, 2, 1)
    given_["k"][:] = 0
    given_["k"][0, :, :5] = torch.tensor([127, 0.5, 1.5, -2.5, 3.5]) * torch.tensor([[1], [-1]])
    assert everything(given_, 1)["keys"][0, 0, 0, :5].tolist() == [127, 0, 2, -2, 4]


def test_offsets_of_keys_are_what_smoothing_is_for() -> None:
    given_ = operands(1, 40, 200, 1)
    offset = torch.zeros(64, device=DEVICE)
    offset[[3, 17, 40]] = torch.tensor([50.0, -80.0, 50.0], device=DEVICE)
    given_["k"] = (given_["k"].float() + offset).half()
    truth = truth_of(**given_, heads=1)
    without = relative(attention_int8_ref(**given_, heads=1, smooth=False), truth)
    assert without > 5 * INT8_ATTENTION_RELATIVE
    assert relative(attention_int8(**given_, heads=1), truth) < INT8_ATTENTION_RELATIVE


def test_slices_of_one_linear_are_read_in_place() -> None:
    apart = operands(2, 77, 77, 2)
    fused = slices(apart)
    plan = planning.plan_attention_int8(
        batch=2, m=77, n=77, heads=2, arch=architecture_of(fused["q"]), q_stride=384, k_stride=384, v_stride=384
    )
    value = execute(plan, fused, allocate=poisoned)["out"]
    assert torch.equal(value, attention_int8(**apart, heads=2))
    assert torch.equal(value, attention_int8(**fused, heads=2))


def test_two_runs_are_equal_to_the_bit() -> None:
    given_ = operands(1, 70, 90, 1)
    first, second = everything(given_, 1), everything(given_, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("arithmetic")
def test_identical_keys_zeros_and_one_key() -> None:
    given_ = operands(1, 20, 77, 1)
    mean = given_["v"].double().mean(1, keepdim=True).expand(-1, 20, -1)
    same = {**given_, "k": given_["k"][:, :1].expand(-1, 77, -1)}
    for name, case in (
        ("identical keys", same),
        ("zero keys", {**given_, "k": torch.zeros_like(given_["k"])}),
        ("zero queries", {**given_, "q": torch.zeros_like(given_["q"])}),
    ):
        value = attention_int8(**case, heads=1)
        assert value.isfinite().all(), name
        assert_as_good_as_torch(value, mean.half(), mean)
    one = operands(2, 5, 1, 2)
    assert torch.equal(attention_int8(**one, heads=2), one["v"].expand(-1, 5, -1))


@pytest.mark.usefixtures("arithmetic")
def test_scores_of_ten_thousand() -> None:
    given_ = operands(1, 40, 90, 1)
    given_["q"][:] = 100 * given_["k"][:, :40]
    given_["k"] *= 12.5  # |k|² is about 64: the right key's score is about 1e4
    assert torch.equal(attention_int8(**given_, heads=1), given_["v"][:, :40])
    given_["q"] *= -1
    assert attention_int8(**given_, heads=1).isfinite().all()


@pytest.mark.usefixtures("arithmetic")
def test_missing_keys_do_not_win_over_bad_ones() -> None:
    given_ = operands(1, 10, 65, 1)
    given_["q"][:] = 100.0
    given_["k"][:] = 12.5
    given_["k"][:, 64] = -12.5  # the only key of the last block is 2e4 below the others
    mean = given_["v"][:, :64].double().mean(1, keepdim=True).expand(-1, 10, -1)
    assert_as_good_as_torch(attention_int8(**given_, heads=1), mean.half(), mean)
    given_["k"] *= -1  # and now the best
    assert torch.equal(attention_int8(**given_, heads=1), given_["v"][:, 64:].expand(-1, 10, -1))


def test_values_near_the_limit_of_float16_are_right_or_plainly_wrong() -> None:
    given_ = operands(1, 20, 64, 1)
    given_["v"] = given_["v"].abs().clamp(0.9, 1) * 65000
    given_["k"][:] = given_["k"][:, :1]
    value = attention_int8(**given_, heads=1)
    assert relative(value, truth_of(**given_, heads=1)) < INT8_ATTENTION_RELATIVE
    assert not attention_int8(**given_, heads=1, accumulate_half=True).isfinite().any()
    given_["v"] /= 4  # 16,250 at most: alike for all 64 keys, just within sums of 65,504
    value = attention_int8(**given_, heads=1, accumulate_half=True)
    assert relative(value, truth_of(**given_, heads=1)) < INT8_ATTENTION_RELATIVE


@pytest.mark.usefixtures("arithmetic")
def test_sums_in_halves_keep_many_small_shares_and_small_values() -> None:
    """What is moved down for their range must not fall out of it: one key outweighs each of 2,047, not all of them."""
    given_ = operands(1, 16, 2048, 1)
    given_["q"][:] = 0
    given_["q"][..., 0] = 8
    given_["k"][:] = 0
    given_["k"][:, 0, 0] = 7  # a score of 7 before softmax: e^-7 is 2^-10 for each of the others
    given_["v"] = given_["v"] * 0.01 + 0.01  # means that do not vanish
    truth = truth_of(**given_, heads=1)
    # 127 steps hold the keys exactly, and what is left is what sums and shares round.
    assert relative(attention_int8(**given_, heads=1, accumulate_half=True), truth) < INT8_ATTENTION_RELATIVE / 10


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_what_depends_on_them_and_nothing_else(wrong: float) -> None:
    given_ = operands(1, 20, 70, 3)
    for name, place, reached in (
        ("q", (0, 4, 70), (0, slice(4, 5), slice(64, 128))),
        ("k", (0, 66, 70), (0, slice(None), slice(64, 128))),
        ("v", (0, 66, 70), (0, slice(None), slice(70, 71))),
    ):
        poisonous = {**given_, name: given_[name].clone()}
        poisonous[name][place] = wrong
        expected = torch.zeros(1, 20, 192, dtype=torch.bool, device=DEVICE)
        expected[reached] = True
        assert torch.equal(~attention_int8(**poisonous, heads=3).isfinite(), expected), name


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter has no bfloat16 matrix products")
def test_bfloat16_values_keep_their_range() -> None:
    given_ = {name: x.bfloat16() for name, x in operands(1, 100, 200, 2).items()}
    assert relative(attention_int8(**given_, heads=2), truth_of(**given_, heads=2)) < INT8_ATTENTION_RELATIVE
    given_["v"] *= 1e30
    assert relative(attention_int8(**given_, heads=2), truth_of(**given_, heads=2)) < INT8_ATTENTION_RELATIVE


def test_a_plan_states_its_work_and_its_scratch() -> None:
    plan = planning.plan_attention_int8(batch=2, m=4096, n=1023, heads=10, arch=SM89)
    assert plan.operations == dict.fromkeys(("int8", "float16"), 2 * 2 * 10 * 4096 * 1023 * 64)
    assert [item.kernel.split(".")[1] for item in plan.launches] == [
        "key_sums_kernel", "quantize_keys_kernel", "attention_int8_kernel",
    ]  # fmt: skip
    assert plan.scratch["keys"].shape == (2, 10, 1024, 64)
    assert plan.scratch["key_scale"].shape == (2, 10, 16)


def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason() -> None:
    shape: dict[str, Any] = {"batch": 1, "m": 8, "n": 8, "heads": 2}
    with pytest.raises(UnsupportedShapeError, match=r"dtype=bfloat16, accumulate_half=True.*use float16"):
        planning.plan_attention_int8(**shape, arch=SM89, dtype="bfloat16", accumulate_half=True)
    with pytest.raises(UnsupportedShapeError, match=r"attention_int8.*k_stride=200.*multiple of 16"):
        planning.plan_attention_int8(**shape, arch=SM89, k_stride=200)
    given_ = operands(1, 8, 9, 2)
    with pytest.raises(UnsupportedShapeError, match=r"attention_int8.*64 channels a head"):
        attention_int8(**given_, heads=3)


def test_plain_torch_quantizes_alike_and_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out: Tensor = attention_int8(q, k, v, 2)
            return out

    given_ = {name: value.cpu() for name, value in operands(2, 6, 70, 2).items()}
    expected = Block()(**given_)
    assert (
        relative(expected, attention_int8_ref(given_["q"], given_["k"], given_["v"], 2)) < INT8_ATTENTION_RELATIVE / 10
    )
    exported = torch.export.export(Block(), (), given_)
    assert "pocketxl.attention_int8.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(**given_), expected)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**given_), expected)
    wide = {name: x.bfloat16() for name, x in given_.items()}
    wide["v"] = wide["v"] * 1e30
    assert relative(Block()(**wide), truth_of(**wide, heads=2)) < INT8_ATTENTION_RELATIVE
