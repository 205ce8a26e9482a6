import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.attention import plan as planning
from pocketxl.kernels.attention.op import attention
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute

from ...fixtures.kernels import DEVICE, assert_as_good_as_torch, poisoned
from .operands import configurations, operands, sdpa, slices, truth_of

SM89 = architecture(89)


def check(given_: dict[str, Tensor], heads: int) -> None:
    """Poisoned memory, and at most twice the error of torch's attention."""
    (batch, m, _), n = given_["q"].shape, given_["k"].shape[1]
    plan = planning.plan_attention(batch=batch, m=m, n=n, heads=heads, arch=architecture_of(given_["q"]))
    value = execute(plan, given_, allocate=poisoned)["out"]
    assert_as_good_as_torch(value, sdpa(**given_, heads=heads), truth_of(**given_, heads=heads))


@pytest.mark.parametrize(
    ("batch", "m", "n", "heads"),
    [
        (2, 64, 64, 3),
        (1, 130, 77, 2),  # a prompt: full blocks, and 13 keys more
        (2, 33, 154, 1),
        (1, 17, 231, 2),
        (2, 1, 1, 3),
        (1, 1, 320, 1),  # full blocks only
        (1, 154, 300, 1),
        (1, 1, 1023, 2),
    ],
)
def test_is_as_good_as_torch(batch: int, m: int, n: int, heads: int) -> None:
    check(operands(batch, m, n, heads), heads)


@settings(max_examples=5, deadline=None)
@given(m=st.integers(1, 80), n=st.integers(1, 300))
def test_any_number_of_tokens(m: int, n: int) -> None:
    check(operands(1, m, n, 1, seed=m * n), 1)


@pytest.mark.parametrize("config", configurations("attention"), ids=str)
@pytest.mark.parametrize("n", [96, 200])
def test_every_configuration(config: dict[str, int], n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "lookup", lambda *_, **__: config)
    check(operands(1, 70, n, 1), 1)


def test_short_and_long_and_few_and_many_rows_have_configurations_of_their_own() -> None:
    def tile(n: int, heads: int = 20) -> dict[str, object]:
        chosen = planning.plan_attention(batch=2, m=1024, n=n, heads=heads, arch=SM89).launches[0]
        return {"m": chosen.constants["BLOCK_M"], "n": chosen.constants["BLOCK_N"]}

    assert tile(231) == {"m": 64, "n": 32}
    assert tile(1024, heads=10) == {"m": 64, "n": 64}
    assert tile(1024) == {"m": 128, "n": 32}


@pytest.mark.parametrize(("n", "tail"), [(1024, False), (1025, True), (1041, True), (1088, False)])
def test_code_for_the_last_keys_is_there_only_where_keys_are_left(n: int, tail: bool) -> None:
    assert planning.plan_attention(batch=1, m=1024, n=n, heads=10, arch=SM89).launches[0].constants["TAIL"] is tail


@pytest.mark.parametrize("sm", [80, 90])
def test_a_picture_is_computed_alike_in_any_batch(sm: int) -> None:
    for m, heads in ((256, 10), (1024, 10), (1024, 20), (4096, 10)):
        for plan in (planning.plan_attention, planning.plan_attention_int8):
            alone, many = (plan(batch=batch, m=m, n=m, heads=heads, arch=architecture(sm)) for batch in (1, 8))
            assert alone.variants == many.variants


@pytest.mark.parametrize(("tokens", "heads"), [(77, 2), (1, 1), (64, 1), (96, 2), (150, 1)])
def test_causal_queries_see_no_later_keys(tokens: int, heads: int) -> None:
    given_ = operands(2, tokens, tokens, heads)
    arch = architecture_of(given_["q"])
    plan = planning.plan_attention(batch=2, m=tokens, n=tokens, heads=heads, arch=arch, causal=True)
    value = execute(plan, given_, allocate=poisoned)["out"]
    assert_as_good_as_torch(
        value, sdpa(**given_, heads=heads, causal=True), truth_of(**given_, heads=heads, causal=True)
    )
    late = {**given_, "k": given_["k"].clone(), "v": given_["v"].clone()}
    late["k"][:, -1], late["v"][:, -1] = 7, 7
    changed = attention(**late, heads=heads, causal=True)
    assert torch.equal(changed[:, :-1], value[:, :-1])
    assert not torch.equal(changed[:, -1], value[:, -1])
    assert torch.equal(value[:, :1], given_["v"][:, :1])


@pytest.mark.parametrize("config", configurations("attention"), ids=str)
def test_every_configuration_can_be_causal(config: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "lookup", lambda *_, **__: config)
    given_ = operands(1, 150, 150, 1)
    value = attention(**given_, heads=1, causal=True)
    assert_as_good_as_torch(value, sdpa(**given_, heads=1, causal=True), truth_of(**given_, heads=1, causal=True))


def test_slices_of_one_linear_are_read_in_place() -> None:
    apart = operands(2, 77, 77, 2)
    fused = slices(apart)
    assert not fused["q"].is_contiguous()
    plan = planning.plan_attention(
        batch=2, m=77, n=77, heads=2, arch=architecture_of(fused["q"]), q_stride=384, k_stride=384, v_stride=384
    )
    value = execute(plan, fused, allocate=poisoned)["out"]
    assert torch.equal(value, attention(**apart, heads=2))
    assert torch.equal(value, attention(**fused, heads=2))


def test_other_layouts_are_copied_first() -> None:
    given_ = operands(2, 20, 77, 2)
    odd = torch.zeros(2, 77, 130, dtype=torch.float16, device=DEVICE)
    odd[..., 1:129] = given_["k"]
    expected = attention(**given_, heads=2)
    turned = given_["q"].transpose(0, 1).contiguous().transpose(0, 1)
    once = {**given_, "k": odd[..., 1:129], "q": turned}
    assert torch.equal(attention(**once, heads=2), expected)
    shared = given_["v"][:1].expand(2, -1, -1)
    assert torch.equal(
        attention(**{**given_, "v": shared}, heads=2), attention(**{**given_, "v": shared.contiguous()}, heads=2)
    )


def test_two_runs_are_equal_to_the_bit() -> None:
    given_ = operands(1, 70, 90, 1)
    assert torch.equal(attention(**given_, heads=1), attention(**given_, heads=1))


def test_identical_keys_give_the_mean_of_the_values() -> None:
    given_ = operands(1, 20, 77, 1)
    given_["k"] = given_["k"][:, :1].expand(-1, 77, -1).contiguous()
    mean = given_["v"].double().mean(1, keepdim=True).expand(-1, 20, -1)
    assert_as_good_as_torch(attention(**given_, heads=1), mean.half(), mean)


def test_one_key_gives_its_value() -> None:
    given_ = operands(2, 5, 1, 2)
    assert torch.equal(attention(**given_, heads=2), given_["v"].expand(-1, 5, -1))


@pytest.mark.usefixtures("arithmetic")
def test_zeros_give_the_mean_and_scores_of_ten_thousand_the_best_key() -> None:
    given_ = operands(1, 40, 90, 1)
    given_["q"][:, 3] = 0
    check(given_, 1)
    given_["q"][:] = 100 * given_["k"][:, :40]
    given_["k"] *= 12.5  # |k|² is about 64: the right key's score is about 1e4
    value = attention(**given_, heads=1)
    assert torch.equal(value, given_["v"][:, :40])
    given_["q"] *= -1  # every query's own key at -1e4
    assert attention(**given_, heads=1).isfinite().all()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_scores_at_ten_thousand_are_a_mean_still(sign: int) -> None:
    given_ = operands(1, 10, 77, 1)
    given_["q"][:] = 100 * sign
    given_["k"][:] = 12.5  # scores of ±1e4; keys that are missing from a block must not win at -1e4
    mean = given_["v"].double().mean(1, keepdim=True).expand(-1, 10, -1)
    assert_as_good_as_torch(attention(**given_, heads=1), mean.half(), mean)


@pytest.mark.usefixtures("arithmetic")
def test_operands_near_the_limit_of_float16() -> None:
    given_ = operands(1, 20, 70, 1)
    given_["v"] = given_["v"].clamp(-1, 1) * 65000
    check(given_, 1)
    given_["q"] = given_["q"].clamp(-1, 1) * 65000
    given_["k"] = given_["k"].clamp(-1, 1) * 65000
    assert attention(**given_, heads=1).isfinite().all()


def test_nan_reaches_what_depends_on_it_and_nothing_else() -> None:
    given_ = operands(1, 20, 70, 3)
    for name, place, wrong in (
        ("q", (0, 4, 70), (0, slice(4, 5), slice(64, 128))),
        ("k", (0, 66, 70), (0, slice(None), slice(64, 128))),
        ("v", (0, 66, 70), (0, slice(None), slice(70, 71))),
    ):
        poisonous = {**given_, name: given_[name].clone()}
        poisonous[name][place] = float("nan")
        expected = torch.zeros(1, 20, 192, dtype=torch.bool, device=DEVICE)
        expected[wrong] = True
        assert torch.equal(attention(**poisonous, heads=3).isnan(), expected), name


def test_a_plan_states_its_work() -> None:
    plan = planning.plan_attention(batch=2, m=4096, n=77, heads=10, arch=SM89)
    assert plan.operations == {"float16": 4 * 2 * 10 * 4096 * 77 * 64}
    assert plan.traffic == 2 * 2 * 640 * (4096 + 77 + 77 + 4096)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"n": 0}, "n=0.*at least one"),
        ({"n": 9, "causal": True}, "causal=True, m=8, n=9.*as many of each"),
        ({"dtype": "float32"}, "dtype=float32.*float16 or bfloat16"),
        ({"q_stride": 64}, "q_stride=64.*less than the 2 heads"),
        ({"k_stride": 392}, "k_stride=392.*multiple of 16"),
        ({"v_stride": 1 << 24}, "v_stride=16777216.*32 bits"),
        ({"batch": 65_536}, "batch=65536.*grid"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    whole = {"batch": 1, "m": 8, "n": 8, "heads": 2, **shape}
    with pytest.raises(UnsupportedShapeError, match=reason):
        planning.plan_attention(arch=SM89, **whole)  # type: ignore[arg-type]


def test_operands_that_do_not_fit_together_are_refused() -> None:
    given_ = operands(1, 8, 9, 2)
    for change, reason in (
        ({"q": given_["q"][..., :80]}, "64 channels a head"),
        ({"v": given_["v"][:, :5]}, "each key has one value"),
        ({"q": given_["q"].expand(2, -1, -1)}, "the same for all"),
        ({"k": given_["k"].float()}, "one dtype"),
        ({"q": given_["q"][0]}, "are .B, tokens, channels"),
    ):
        with pytest.raises(UnsupportedShapeError, match=reason):
            attention(**{**given_, **change}, heads=2)


def test_export_and_compile_take_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out: Tensor = attention(q, k, v, 2)
            return out + 1

    given_ = {name: value.cpu() for name, value in operands(2, 6, 5, 2).items()}
    expected = Block()(**given_)
    exported = torch.export.export(Block(), (), given_)
    assert "pocketxl.attention.default" in {str(node.target) for node in exported.graph.nodes}
    assert torch.equal(exported.module()(**given_), expected)
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**given_), expected)
