"""The calls of a forward, held to diffusers: operation for operation, and to the shares that were measured."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.errors import KernelError
from pocketxl.kernels.sdxl import (
    OPS,
    PRECISIONS,
    Call,
    all_launch_plans,
    alternatives,
    calls,
    launch_plan,
    plan_function,
    vae_calls,
)
from pocketxl.kernels.sdxl_edges import edges
from pocketxl.kernels.sdxl_layers import SHAPES, Attention, Conv, Linear, layers

CONFIGS = Path(__file__).parents[2] / "export" / "checkpoint" / "configs"
MODELS = ("base", "refiner")
# Computed once per picture, so no part of a forward.
OUTSIDE = ("attn2.to_k", "attn2.to_v", "time_emb_proj", ".time_embedding", ".add_embedding")
TEXT = {"base": (2048, 1280, 6), "refiner": (1280, 1280, 5)}  # prompt width, pooled width, size ids


def diffusers_operations(model: str, height: int, width: int, batch: int) -> tuple[int, int]:
    """What torch counts in diffusers' own U-Net without memory: within the loop, and once per picture."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    config = json.loads((CONFIGS / model / "unet" / "config.json").read_text())
    text, pooled, ids = TEXT[model]
    with torch.device("meta"), torch.inference_mode():
        unet: Any = UNet2DConditionModel.from_config(config)
        added = {"text_embeds": torch.empty(batch, pooled), "time_ids": torch.empty(batch, ids)}
        with FlopCounterMode(display=False) as counter:
            unet(
                torch.empty(batch, 4, height // 8, width // 8),
                torch.empty(()),
                encoder_hidden_states=torch.empty(batch, 77, text),
                added_cond_kwargs=added,
            )
    counts = counter.get_flop_counts()
    outside = sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(OUTSIDE))
    return counter.get_total_flops() - outside, outside


@pytest.mark.slow
@pytest.mark.parametrize(("model", "height", "width", "batch"), [("base", 1024, 1024, 1), ("refiner", 832, 1216, 2)])
def test_steps_do_what_diffusers_does(model: Any, height: int, width: int, batch: int) -> None:
    ours = sum(layer.operations for layer in layers(model, height=height, width=width, batch=batch))
    inside, outside = diffusers_operations(model, height, width, batch)
    assert ours == inside
    if model == "base":  # the figure that every plan of this project starts from
        assert (inside + outside) / 1e9 == pytest.approx(6761, abs=0.5)


def test_sizes_that_halve_to_odd_ones_grow_back() -> None:
    walk = [s for s in layers("refiner", height=1000, width=1016) if isinstance(s, Conv)]
    assert [(s.out_height, s.out_width) for s in walk if s.role == "down"] == [(63, 64), (32, 32), (16, 16)]
    assert [(s.out_height, s.out_width) for s in walk if s.role == "up"] == [(32, 32), (63, 64), (125, 127)]


def test_shares_are_those_of_the_plan() -> None:
    found: defaultdict[str, int] = defaultdict(int)
    for layer in layers("base", height=1024, width=1024):
        match layer:
            case Conv():
                found["conv"] += layer.operations
            case Linear(role="ff_in" | "ff_out"):
                found["feed-forward"] += layer.operations
            case Linear(role="qkv" | "self_out"):
                found["attention projections"] += layer.operations
            case Linear(role="proj_in" | "proj_out"):
                found["proj_in and proj_out"] += layer.operations
            case Attention(cross=False):
                found["self-attention"] += layer.operations
    gflop = {name: operations / 1e9 for name, operations in found.items()}
    expected = {
        "conv": 1623.1,
        "feed-forward": 2818.6,
        "attention projections": 939.5,
        "proj_in and proj_out": 73.8,
        "self-attention": 751.6,
    }
    assert gflop == {name: pytest.approx(value, abs=0.2) for name, value in expected.items()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("height", "width", "batch"), [(1024, 1024, 1), (512, 512, 2), (832, 1216, 2)])
def test_plans_do_every_operation_but_the_ends(model: Any, precision: Any, height: int, width: int, batch: int) -> None:
    size: dict[str, Any] = {"height": height, "width": width, "batch": batch}
    arch = architecture(89)
    planned = sum(
        call.count * sum(launch_plan(call, arch).operations.values())
        for call in calls(model, **size, precision=precision)
    )
    walk = list(layers(model, **size))
    ends = sum(s.operations for s in walk if isinstance(s, Conv) and s.role in ("in", "out"))
    assert planned == sum(s.operations for s in walk) - ends
    assert ends / planned < 3e-4


def test_an_output_is_as_large_as_what_reads_it_says() -> None:
    """Walks the calls of a ResNet and of a transformer block by their buffers."""
    arch = architecture(86)
    by_op: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls("base", height=512, width=512, batch=2):
        by_op[call.op].append(call)
    made = [launch_plan(call, arch) for call in by_op["linear_w8a8"]]
    inputs = {p.inputs["x"].shape for p in made}
    written = {
        launch_plan(call, arch).outputs["q"].shape
        for op in ("layer_norm_quantize", "quantize_per_token")
        for call in by_op[op]
    }
    assert inputs == written
    gated = {launch_plan(call, arch).outputs["out"].shape for call in by_op["geglu_linear_w8a8"]}
    assert gated == {(2 * 32 * 32, 4 * 640), (2 * 16 * 16, 4 * 1280)}
    assert gated <= inputs


def test_counts_are_those_of_the_architecture() -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    for call in calls("base", height=1024, width=1024):
        counts[call.op] += call.count
    blocks = 70  # 2·2 + 2·10 down, 10 in the middle, 3·10 + 3·2 up
    assert counts["self_attention"] == counts["attention"] == counts["geglu_linear_w8a8"] == blocks
    assert counts["layer_norm_quantize"] == 3 * blocks
    transformers = 11
    assert counts["linear_w8a8"] == 5 * blocks + 2 * transformers  # qkv, out, q, out, back; in and out
    resnets, shortcuts = 17, 11
    assert counts["conv_w8a8"] == 2 * resnets + shortcuts + 4
    assert counts["group_norm_silu_quantize"] == 2 * resnets + 1
    assert counts["group_norm_silu"] == transformers


def test_every_op_is_called_or_is_an_alternative() -> None:
    called = {op for op, _ in edges()}
    for precision in PRECISIONS:
        found = calls("base", height=512, width=512, precision=precision)
        called |= {call.op for call in (*found, *alternatives(found))}
    called |= {call.op for call in vae_calls(height=512, width=512)}
    assert called == set(OPS)


def test_guidance_doubles_the_work_and_no_weights() -> None:
    one, two = (
        [launch_plan(c, architecture(90)) for c in calls("refiner", height=768, width=768, batch=b)] for b in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert {name: 2 * value for name, value in a.operations.items()} == b.operations
        if "weight" in a.inputs:
            assert a.inputs["weight"] == b.inputs["weight"]


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_few_variants_serve_all_sizes(sm: int) -> None:
    arch = GPU_ARCHITECTURES[sm]
    plans = all_launch_plans(arch)
    variants = {variant for made in plans for variant in made.variants}
    assert {made.op for made in plans} == set(OPS)
    assert len(variants) <= 220  # each takes a second or two to compile; 166 to 187 today
    # A size that is not in the list asks for nothing new.
    for model in SHAPES:
        for precision in PRECISIONS:
            for call in calls(model, height=896, width=1152, batch=2, precision=precision):
                assert variants.issuperset(launch_plan(call, arch).variants), call
    for call in vae_calls(height=896, width=1160, batch=3):
        assert variants.issuperset(launch_plan(call, arch).variants), call
    kinds = {variant.instruction for variant in variants}
    assert ("e4m3" in kinds) == arch.fp8


def test_an_unknown_op_is_named() -> None:
    with pytest.raises(KernelError, match="no op 'linear_w2'; there are linear_w8a8"):
        plan_function("linear_w2")
