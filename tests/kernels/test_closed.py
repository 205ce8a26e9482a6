"""No size asks for a kernel that is not in the closed set: what an engine ships is enough for every picture."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.closed import all_variants
from pocketxl.kernels.errors import KernelError
from pocketxl.kernels.sdxl import OPS, PRECISIONS, Call, alternatives, calls, launch_plan, vae_calls
from pocketxl.kernels.sdxl_edges import edges

SIZE_KEYWORDS = {"m", "b", "h", "w", "batch"}
latents = st.integers(8, 192)
# Cards of every size: a laptop's 20 multiprocessors, and more than there are today.
architectures = st.builds(architecture, st.sampled_from(sorted(GPU_ARCHITECTURES)), st.none() | st.integers(1, 300))


def without_sizes(call: Call) -> dict[str, Any]:
    """As an engine knows a call when it compiles: sizes are names."""
    names = SIZE_KEYWORDS | ({"n"} if call.op.startswith("attention") else set())
    shape = {name: "any" if name in names else value for name, value in call.shape.items()}
    return {**shape, "upsample_to": True} if "upsample_to" in shape else shape


@settings(max_examples=6, deadline=None)
@given(
    arch=architectures, model=st.sampled_from(("base", "refiner")), precision=st.sampled_from(PRECISIONS),
    height=latents, width=latents, batch=st.integers(1, 2), prompts=st.integers(1, 2),
)  # fmt: skip
def test_a_forward_of_any_size(
    arch: Any, model: Any, precision: Any, height: int, width: int, batch: int, prompts: int
) -> None:
    size: dict[str, Any] = {"height": 8 * height, "width": 8 * width, "batch": batch, "tokens": 77 * prompts}
    found = calls(model, **size, precision=precision)
    for call in (*found, *alternatives(found)):
        asked = launch_plan(call, arch).variants
        assert set(asked) <= set(all_variants(call.op, without_sizes(call), architecture(arch.sm))), call


@settings(max_examples=150, deadline=None)
@given(data=st.data(), arch=architectures)
def test_what_stands_beside_the_loop_at_any_size(data: st.DataObject, arch: Any) -> None:
    op, shape = data.draw(st.sampled_from([*edges(), *EXTRA]))
    sizes: dict[str, Any] = {name: data.draw(st.integers(1, 40_000)) for name in ("m",) if name in shape}
    if "h" in shape:
        sizes |= {"b": data.draw(st.integers(1, 3)), "h": data.draw(st.integers(1, 400)), "w": data.draw(latents)}
    if "upsample_to" in shape:
        sizes["upsample_to"] = tuple(2 * sizes[name] - data.draw(st.integers(0, 1)) for name in ("h", "w"))
    if op.endswith(("attention", "attention_int8", "attention_wide")):
        sizes["batch"] = data.draw(st.integers(1, 4))
        sizes["n"] = data.draw(st.integers(1, 700) | st.integers(1, 20).map(lambda blocks: 32 * blocks))
        sizes["m"] = sizes["n"] if shape.get("causal") else data.draw(st.integers(1, 40_000))
    asked = launch_plan(Call(op=op, shape={**shape, **sizes}, count=1), arch).variants
    known = all_variants(op, without_sizes(Call(op=op, shape=shape, count=1)), architecture(arch.sm))
    assert set(asked) <= set(known)


EXTRA: list[tuple[str, dict[str, Any]]] = [
    ("linear_f16", {"m": 1, "n": 81, "k": 512, "bias": False, "out_dtype": "float32"}),
    ("attention", {"batch": 1, "m": 1, "n": 1, "heads": 10}),
    ("attention", {"batch": 1, "m": 1, "n": 1, "heads": 3, "causal": True}),
    ("attention_int8", {"batch": 1, "m": 1, "n": 1, "heads": 20, "accumulate_half": True}),
    ("self_attention", {"batch": 1, "m": 1, "n": 1, "heads": 10}),
    ("conv_f16", {"b": 1, "h": 1, "w": 1, "c": 640, "n": 640, "stride": 2}),
    ("conv_f16", {"b": 1, "h": 1, "w": 1, "c": 640, "c2": 320, "n": 640, "kernel": 1}),
    ("conv_w8a8", {"b": 1, "h": 1, "w": 1, "c": 1280, "n": 1280, "upsample_to": (1, 1)}),
    ("quantize_per_image", {"b": 1, "h": 1, "w": 1, "c": 320}),
]


def test_edges_of_tables_and_shares_are_found() -> None:
    """Not only what common sizes ask for: both ends of a table, and both ways to sum."""
    shape: dict[str, Any] = {"c": 1280, "n": 1280, "kernel": 3}
    found = all_variants("conv_w8a8", shape, architecture(89))
    constants = [dict(v.constants) for v in found if v.kernel == "conv.conv_w8a8_kernel"]
    assert {c["BLOCK_M"] for c in constants} == {32, 64, 128}
    assert {(c["BLOCK_M"], c["SHARED"]) for c in constants} == {(m, s) for m in (32, 64, 128) for s in (True, False)}
    assert any(v.kernel == "conv.conv_sum_kernel" for v in found)
    tokens = [dict(v.constants) for v in all_variants("attention_int8", {"heads": 10}, architecture(89))]
    assert {(c["BLOCK_M"], c["BLOCK_N"], c["TAIL"]) for c in tokens if "TAIL" in c} == {
        *((m, 64, False) for m in (64, 128)),  # whole blocks of 64 keys
        *((m, 32, tail) for m in (64, 128) for tail in (False, True)),  # of 32, and neither
    }


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_few_kernels_serve_a_model_at_any_size(sm: int) -> None:
    arch = architecture(sm)
    found = {v for call in calls("base", height=512, width=512) for v in all_variants(
        call.op, without_sizes(call), arch)}  # fmt: skip
    assert len(found) <= 120


def test_every_op_is_closed_and_an_unknown_one_is_named() -> None:
    tried = {op for op, _ in edges()}
    for precision in PRECISIONS:
        found = calls("base", height=512, width=512, precision=precision)
        tried |= {call.op for call in (*found, *alternatives(found))}
    tried |= {call.op for call in vae_calls(height=512, width=512)}
    assert tried == set(OPS)
    with pytest.raises(KernelError, match="no op 'linear_w2'; there are linear_w8a8"):
        all_variants("linear_w2", {}, architecture(89))
