import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketxl.kernels import execute as execution
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.errors import UnsupportedShapeError
from pocketxl.kernels.execute import architecture_of, execute
from pocketxl.kernels.quantize.op import geglu_quantize, quantize_per_image, quantize_per_token
from pocketxl.kernels.quantize.plan import plan_quantize_per_token
from pocketxl.kernels.quantize.reference import quantize_per_token_ref
from pocketxl.kernels.quantize.rows import MAX_C, row_tile

from ...fixtures.kernels import DEVICE, poisoned
from .checks import assert_float8, assert_int8


def normal(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.parametrize(
    ("m", "c"),
    [(1, 640), (77, 320), (154, 384), (1023, 16), (5, 1280), (3, 768), (2, 1536), (2, 1040), (33, 48), (2, 10240)],
)
def test_tokens_within_half_a_step_and_every_element_written(m: int, c: int) -> None:
    x = normal(m, c)
    plan = plan_quantize_per_token(m=m, c=c, arch=architecture_of(x))
    made = execute(plan, {"x": x}, allocate=poisoned)
    assert_int8((made["q"], made["scale"]), x.double(), x.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_floats_and_leading_dimensions(dtype: torch.dtype) -> None:
    x = normal(2, 7, 96, dtype=dtype)
    assert_int8(quantize_per_token(x), x.double(), x.float())


def test_a_view_that_is_not_contiguous() -> None:
    x = normal(32, 14).T
    assert_int8(quantize_per_token(x), x.double(), x.float())


def test_ties_go_to_the_even_integer() -> None:
    x = torch.zeros(1, 16, device=DEVICE)
    x[0, :8] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5])
    q, scale = quantize_per_token(x)
    assert scale.item() == 1
    assert q[0, :8].tolist() == [127, 0, 2, 2, 0, -2, -2, 126]


def test_an_outlier_channel_costs_the_others_what_it_costs_torch() -> None:
    x = normal(9, 64)
    x[:, 5] *= 50
    assert_int8(quantize_per_token(x), x.double(), x.float())


def test_a_token_of_zeros_is_zeros_and_its_scale_can_be_divided_by() -> None:
    x = normal(5, 64)
    x[3] = 0
    q, scale = quantize_per_token(x)
    assert not q[3].any()
    assert 0 < scale[3] < 1e-30
    assert_int8((q, scale), x.double(), x.float())


def test_the_ends_of_float16_and_of_float32() -> None:
    x = normal(3, 32, dtype=torch.float32)
    half = (x.clamp(-1, 1) * 65504).half()
    half[1] = torch.tensor(2.0**-24, dtype=torch.float16)
    assert_int8(quantize_per_token(half), half.double(), half.float())
    wide = x.clamp(-1, 1) * 3e38
    wide[1] = 1e-40
    q, scale = quantize_per_token(wide)
    assert not q[1].any()
    assert_int8((q[::2], scale[::2]), wide[::2].double(), wide[::2])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 19, 47])
def test_what_is_not_finite_makes_the_scale_of_its_token_nan(wrong: float, place: int) -> None:
    x = normal(5, 48)
    x[2, place] = wrong
    q, scale = quantize_per_token(x)
    assert scale.isnan().tolist() == [False, False, True, False, False]
    others = [0, 1, 3, 4]
    assert_int8((q[others], scale[others]), x[others].double(), x[others].float())


@pytest.mark.parametrize("c", [64, 80])
def test_float8(c: int) -> None:
    x = normal(7, c)
    x[:, 3] *= 50
    x[4] = 0
    assert_float8(quantize_per_token(x, torch.float8_e4m3fn), x.double())


def test_two_runs_are_equal_to_the_bit() -> None:
    x = normal(70, 48)
    first, second = quantize_per_token(x), quantize_per_token(x)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@settings(max_examples=10, deadline=None)
@given(m=st.integers(1, 40), c=st.integers(1, 80).map(lambda part: 16 * part), seed=st.integers(0, 99))
def test_any_shape_in_the_constraints(m: int, c: int, seed: int) -> None:
    x = normal(m, c, seed=seed)
    made = execute(plan_quantize_per_token(m=m, c=c, arch=architecture_of(x)), {"x": x}, allocate=poisoned)
    assert_int8((made["q"], made["scale"]), x.double(), x.float())


def test_the_reference_agrees_where_it_is_exact() -> None:
    x = normal(20, 64, dtype=torch.float32)
    q, scale = quantize_per_token_ref(x)
    assert_int8((q, scale), x.double(), x)
    x[4, 7] = torch.nan
    q, scale = quantize_per_token_ref(x)
    assert scale.isnan().nonzero().flatten().tolist() == [4]
    assert not q[4].any()


@pytest.mark.parametrize("c", [320, 384, 640, 768, 1280, 1536, 2560, 3072, 5120, 6144, 10240])
def test_rows_of_sdxl_leave_no_lane_idle(c: int) -> None:
    tile = row_tile(c, {"TILE": 1024, "num_warps": 4})
    assert tile.parts * tile.width == c
    assert tile.rows * tile.width == 256 * tile.num_warps, "eight elements a thread"


@given(c=st.integers(1, MAX_C // 16).map(lambda part: 16 * part))
def test_any_row_is_covered_with_little_idle(c: int) -> None:
    tile = row_tile(c, {"TILE": 1024, "num_warps": 4})
    assert c <= tile.parts * tile.width <= max(1.25 * c, c + 16)
    assert tile.num_warps in (4, 8, 16)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"m": 8, "c": 24}, "c=24.*multiple of 16"),
        ({"m": 0, "c": 16}, "m=0.*at least one row"),
        ({"m": 8, "c": MAX_C + 16}, "registers of one program"),
        ({"m": 8, "c": 16, "dtype": "uint8"}, "dtype=uint8.*int8, float8_e4m3fn"),
        ({"m": 8, "c": 16, "x_dtype": "int8"}, "x_dtype=int8.*float16, bfloat16, float32"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_shape_and_the_reason(shape: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedShapeError, match=reason):
        plan_quantize_per_token(arch=architecture(89), **shape)  # type: ignore[arg-type]


def test_float8_is_refused_before_sm_89() -> None:
    with pytest.raises(UnsupportedShapeError, match=r"sm=80.*sm_89"):
        plan_quantize_per_token(m=8, c=16, arch=architecture(80), dtype="float8_e4m3fn")


def test_export_and_compile_take_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_INTERPRETED", False)

    class Block(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return *quantize_per_token(x), *geglu_quantize(x), *quantize_per_image(x, torch.float8_e4m3fn)

    x = torch.randn(2, 3, 4, 32).half()
    expected = Block()(x)
    assert [value.shape for value in expected[:4]] == [(2, 3, 4, 32), (2, 3, 4), (2, 3, 4, 16), (2, 3, 4)]
    exported = torch.export.export(Block(), (x,))
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert {f"pocketxl.{op}.default" for op in ("quantize_per_token", "geglu_quantize", "quantize_per_image")} <= called
    compiled = torch.compile(Block(), backend="aot_eager", fullgraph=True)
    for made in (exported.module()(x), compiled(x)):
        assert all(
            torch.equal(a.float(), b.float()) and a.dtype == b.dtype for a, b in zip(made, expected, strict=True)
        )
