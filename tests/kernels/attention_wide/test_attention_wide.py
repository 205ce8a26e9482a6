from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.attention_wide import plan as planning
from pocketxl.kernels.attention_wide.op import attention_wide
from pocketxl.kernels.attention_wide.plan import plan_attention_wide
from pocketxl.kernels.attention_wide.reference import attention_wide_ref
from pocketxl.kernels.configs import table
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned

SM89 = architecture(89)
LITTLE = 1  # byte of scratch: as many rounds as there can be


def operands(batch: int, m: int, n: int, channels: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Normal queries, keys and values, float16."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, tokens, channels, generator=random).half().to(DEVICE)
        for name, tokens in (("q", m), ("k", n), ("v", n))
    }


def run(given_: dict[str, Tensor], **more: Any) -> Tensor:
    """The kernels' result, from poisoned memory."""
    (batch, m, channels), n = given_["q"].shape, given_["k"].shape[1]
    arch = architecture_of(given_["q"])
    plan = plan_attention_wide(batch=batch, m=m, n=n, channels=channels, arch=arch, **more)
    return execute(plan, given_, allocate=poisoned)["out"]


def check(given_: dict[str, Tensor], **more: Any) -> None:
    """At most twice the error of torch's attention."""
    peer = scaled_dot_product_attention(given_["q"], given_["k"], given_["v"])
    assert_as_good_as_torch(run(given_, **more), peer, attention_wide_ref(**given_))


@pytest.mark.parametrize(
    ("batch", "m", "n", "channels"),
    [
        (1, 130, 260, 512),  # full width; a tile and two queries, two blocks and four keys
        (2, 64, 128, 96),  # the miniature: a tile of channels is not full
        (1, 1, 1, 16),
        (2, 5, 127, 48),  # a step of channels is not full
        (1, 129, 1, 144),  # a second tile of channels
        (1, 3, 4100, 16),  # more blocks of keys than are totalled at a time
    ],
)
def test_is_as_good_as_torch(batch: int, m: int, n: int, channels: int) -> None:
    check(operands(batch, m, n, channels))


@settings(max_examples=6, deadline=None)
@given(m=st.integers(1, 300), n=st.integers(1, 400), sixteens=st.integers(1, 10))
def test_any_number_of_tokens(m: int, n: int, sixteens: int) -> None:
    check(operands(1, m, n, 16 * sixteens, seed=m * n), scratch=LITTLE)


@pytest.mark.parametrize("mix", [dict(row.config) for row in table("attention_wide_mix")], ids=str)
def test_every_configuration(mix: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    score = next(
        dict(row.config)
        for row in table("attention_wide")
        if any(dict(other.config) == mix and other.sm == row.sm for other in table("attention_wide_mix"))
    )
    monkeypatch.setattr(planning, "lookup", lambda op, *_: {"attention_wide": score, "attention_wide_mix": mix}[op])
    check(operands(1, 140, 300, 272))


@pytest.mark.parametrize("scratch", [LITTLE, 2 * 128 * 384 * 2, 2**28])
def test_rounds_change_nothing(scratch: int) -> None:
    given_ = operands(1, 400, 300, 32)
    assert torch.equal(run(given_, scratch=scratch), run(given_))


@pytest.mark.parametrize(("scratch", "rounds"), [(LITTLE, 128), (64 * 2**20, 8), (planning.SCRATCH, 2), (2**30, 1)])
def test_shares_take_no_more_memory_than_they_may_and_rounds_are_even(scratch: int, rounds: int) -> None:
    plan = plan_attention_wide(batch=1, m=16_384, n=16_384, channels=512, arch=SM89, scratch=scratch)
    assert len(plan.launches) == 3 * rounds
    assert plan.scratch["shares"].shape == (1, 16_384 // rounds, 16_384)
    assert plan.scratch["shares"].size_bytes <= max(scratch, 2 * 128 * 16_384)


def test_a_picture_is_the_same_to_the_bit_alone_and_in_a_batch() -> None:
    given_ = operands(3, 150, 200, 48)
    whole = run(given_)
    for i in range(3):
        assert torch.equal(run({name: x[i : i + 1] for name, x in given_.items()})[0], whole[i])
    assert torch.equal(run({**given_, "q": given_["q"][:, :7].contiguous()}), whole[:, :7])


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_binaries_do_not_depend_on_tokens_or_batch(sm: int) -> None:
    arch = architecture(sm)
    sizes = [(1, 16_384, 16_384), (4, 16_383, 77), (1, 9_000, 8_208), (2, 36_864, 36_864)]
    small = [(1, 1, 1), (2, 4096, 4096), (1, 8_192, 100), (70, 16, 5)]
    for group in (sizes, small):
        assert len({_variants(*size, arch) for size in group}) == 1


def _variants(batch: int, m: int, n: int, arch: Any) -> frozenset[object]:
    return frozenset(plan_attention_wide(batch=batch, m=m, n=n, channels=512, arch=arch).variants)


def test_slices_of_one_linear_are_read_in_place_and_others_copied() -> None:
    apart = operands(2, 70, 70, 48)
    expected = run(apart)
    fused = dict(zip(apart, torch.cat(list(apart.values()), -1).chunk(3, -1), strict=True))
    assert not fused["q"].is_contiguous()
    assert torch.equal(run(fused, q_stride=144, k_stride=144, v_stride=144), expected)
    assert torch.equal(attention_wide(**fused), expected)
    odd = torch.zeros(2, 70, 50, dtype=torch.float16, device=DEVICE)
    odd[..., 1:49] = apart["k"]
    turned = apart["q"].transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(attention_wide(turned, odd[..., 1:49], apart["v"]), expected)


def test_identical_keys_give_the_mean_of_the_values_and_one_key_its_value() -> None:
    given_ = operands(2, 20, 200, 32)
    one = {**given_, "k": given_["k"][:, :1].contiguous(), "v": given_["v"][:, :1].contiguous()}
    assert torch.equal(run(one), one["v"].expand(-1, 20, -1))
    given_["k"] = one["k"].expand(-1, 200, -1).contiguous()
    mean = given_["v"].double().mean(1, keepdim=True).expand(-1, 20, -1)
    assert_as_good_as_torch(run(given_), mean.half(), mean)


def test_scores_of_ten_thousand_give_the_best_key_exactly() -> None:
    given_ = operands(1, 300, 300, 96)
    given_["q"][:] = 100 * given_["k"]
    given_["k"] *= 10  # |k|² is about 96: the right key's score is about 1e4
    assert torch.equal(run(given_), given_["v"])
    given_["q"] *= -1  # every query's own key at -1e4
    assert run(given_).isfinite().all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_all_scores_at_ten_thousand_are_a_mean_still(sign: int) -> None:
    given_ = operands(1, 10, 200, 64)
    given_["q"][:] = 100 * sign
    given_["k"][:] = 12.5  # scores of ±1e4; keys that are missing from a block must not win at -1e4
    mean = given_["v"].double().mean(1, keepdim=True).expand(-1, 10, -1)
    assert_as_good_as_torch(run(given_), mean.half(), mean)


def test_operands_near_the_limit_of_float16() -> None:
    given_ = operands(1, 20, 300, 48)
    given_["v"] = given_["v"].clamp(-1, 1) * 65504
    check(given_)
    given_["v"][:] = 65504
    assert (run(given_) == 65504).all()
    given_["q"] = given_["q"].clamp(-1, 1) * 65504
    given_["k"] = given_["k"].clamp(-1, 1) * 65504
    assert (run(given_) == 65504).all()


@pytest.mark.parametrize("at", [3, 250])
def test_nan_reaches_what_depends_on_it_and_nothing_else(at: int) -> None:
    given_ = operands(2, 20, 300, 48)
    for name, token, wrong in (
        ("q", 4, (1, slice(4, 5), slice(None))),
        ("k", at, (1, slice(None), slice(None))),
        ("v", at, (1, slice(None), slice(7, 8))),
    ):
        poisonous = {**given_, name: given_[name].clone()}
        poisonous[name][1, token, 7] = float("nan")
        expected = torch.zeros(2, 20, 48, dtype=torch.bool, device=DEVICE)
        expected[wrong] = True
        assert torch.equal(run(poisonous).isnan(), expected), name


def test_a_plan_states_its_work() -> None:
    plan = plan_attention_wide(batch=2, m=4096, n=77, channels=512, arch=SM89)
    assert plan.operations == {"float16": 4 * 2 * 4096 * 77 * 512}
    assert plan.traffic == 2 * 2 * 512 * (4096 + 77 + 77 + 4096)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"n": 0}, "n=0.*at least one"),
        ({"dtype": "bfloat16"}, "dtype=bfloat16.*float16"),
        ({"channels": 40}, "channels=40.*multiple of 16"),
        ({"channels": 0}, "channels=0.*multiple of 16"),
        ({"q_stride": 16}, "q_stride=16.*less than the 32 channels"),
        ({"k_stride": 40}, "k_stride=40.*multiple of 16"),
        ({"v_stride": 1 << 23}, "v_stride=8388608.*32 bits"),
        ({"batch": 65_536}, "batch=65536.*grid"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    whole = {"batch": 1, "m": 8, "n": 8, "channels": 32, **shape}
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_attention_wide(arch=SM89, **whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"), [({"BLOCK_K": 256}, "fill whole steps"), ({"BLOCK_M": 256}, "128 queries")]
)
def test_tables_that_do_not_fit_together_are_refused(
    change: dict[str, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "GROUP_M": 8, "num_warps": 4, "num_stages": 2, **change}
    monkeypatch.setattr(planning, "lookup", lambda *_: config)
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_attention_wide(batch=1, m=8, n=8, channels=32, arch=SM89)


def test_operands_that_do_not_fit_together_are_refused() -> None:
    given_ = operands(1, 8, 9, 32)
    for change, reason in (
        ({"v": given_["v"][:, :5]}, "each key has one value"),
        ({"q": given_["q"].expand(2, -1, -1)}, "the same for all"),
        ({"k": given_["k"].float()}, "all three are float16"),
        ({"q": given_["q"][0]}, "are .B, tokens, channels"),
    ):
        with pytest.raises(UnsupportedShapeError, match=reason):
            attention_wide(**{**given_, **change})


def test_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out: Tensor = attention_wide(q, k, v)
            return out + 1

    given_ = {name: value.cpu() for name, value in operands(2, 6, 5, 32).items()}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    assert "pocketxl.attention_wide.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(**given_), expected)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**given_), expected)
