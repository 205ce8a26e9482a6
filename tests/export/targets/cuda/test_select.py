"""Which ops compute a network's layers, and who writes 8 bits for whom."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.quantize.formats import (
    A8_SCORES_TOKEN,
    FLOAT16,
    FP8_TOKEN,
    W4A8_TOKEN,
    W8,
    W8A8_PICTURE,
    W8A8_SIGNED,
    W8A8_TOKEN,
    Format,
    Kind,
)
from pocketxl.export.targets.cuda.select import Selected, select
from pocketxl.export.targets.cuda.steps import Attention, Conv, GroupNorm, LayerNorm, Linear, Place, Step, Steps
from pocketxl.export.targets.cuda.stored import Inverse, Part

PLACE = Place(level=1)


def eight_bits(kind: Kind, layer: str) -> Format:
    return W8A8_TOKEN if kind is Kind.LINEAR else W8A8_PICTURE


def halves(kind: Kind, layer: str) -> Format:
    return FLOAT16


def linear(layer: str, x: str, out: str, *, n: int = 64, **more: object) -> Linear:
    return Linear(layers=(layer,), place=PLACE, x=x, out=out, k=64, n=n, bias=True, **more)  # type: ignore[arg-type]


def norm(x: str, out: str) -> LayerNorm:
    return LayerNorm(layer="norm", place=PLACE, x=x, out=out, c=64, eps=1e-5)


def selected(
    steps: Sequence[Step], format_of: Callable[[Kind, str], Format] = eight_bits, outputs: Sequence[str] = ()
) -> Selected:
    return select(Steps(steps=tuple(steps), outputs={name: (name,) for name in outputs}), format_of)


def ops(found: Selected) -> list[str]:
    return [call.op for call in found.calls]


def test_a_norm_quantizes_for_the_layers_behind_it() -> None:
    found = selected([norm("x", "y"), linear("a", "y", "b"), linear("c", "y", "d")])
    assert ops(found) == ["layer_norm_quantize", "linear_w8a8", "linear_w8a8"]
    made = found.calls[0].outputs
    assert all(call.inputs["x"].name == made["q"] for call in found.calls[1:])
    assert found.calls[0].shape == {"m": "rows1", "c": 64, "eps": 1e-5}


def test_what_is_read_in_both_forms_is_written_in_both() -> None:
    found = selected([norm("x", "y"), linear("a", "y", "b"), linear("c", "b", "d", residual="y")])
    assert ops(found) == ["layer_norm_quantize", "layer_norm", "linear_w8a8", "quantize_per_token", "linear_w8a8"]
    assert found.calls[-1].inputs["residual"].name == "y"


def test_other_values_are_quantized_once_however_many_read_them() -> None:
    found = selected([linear("a", "x", "b"), linear("c", "x", "d")])
    assert ops(found) == ["quantize_per_token", "linear_w8a8", "linear_w8a8"]


def test_gates_are_in_the_product_or_behind_it() -> None:
    gated = linear("a", "x", "b", n=128, activation="geglu")
    inside = selected([gated])
    assert ops(inside) == ["quantize_per_token", "geglu_linear_w8a8"]
    assert inside.calls[-1].shape["n"] == 64, "columns that are left"
    behind = selected([gated], halves)
    assert ops(behind) == ["linear_f16", "geglu"]
    assert behind.calls[0].shape["n"] == 128
    assert behind.calls[1].inputs["x"].name == behind.calls[0].outputs["out"]


def test_four_bits_by_eight_read_what_eight_bits_read() -> None:
    steps: list[Step] = [norm("x", "y"), linear("a", "y", "b"), linear("c", "y", "d", n=128, activation="geglu")]
    found = selected(steps, lambda kind, layer: W4A8_TOKEN if layer == "c" else W8A8_TOKEN)
    assert ops(found) == ["layer_norm_quantize", "linear_w8a8", "geglu_linear_w4a8"]
    assert found.calls[2].inputs["x"] == found.calls[1].inputs["x"]
    assert {name: value.name for name, value in found.calls[2].inputs.items() if "weight" in name} == {
        "weight": "c.weight", "weight_scale": "c.scale"
    }  # fmt: skip
    short = Linear(layers=("e",), place=PLACE, x="x", out="y", k=48, n=64, bias=True)
    assert ops(selected([short], lambda kind, layer: W4A8_TOKEN)) == ["linear_f16"], "no whole run of 64"


def test_layers_that_are_multiplied_at_once_have_the_most_precise_of_their_formats() -> None:
    step = Linear(layers=("q", "k", "v"), place=PLACE, x="x", out="y", k=64, n=192, bias=False)
    found = selected([step], lambda kind, layer: W8 if layer == "k" else W8A8_TOKEN)
    assert ops(found) == ["linear_w8"]
    assert set(found.stored) == {"q+k+v.weight", "q+k+v.scale"}


def test_attention_reads_columns_of_a_wider_value() -> None:
    steps: list[Step] = [
        Linear(layers=("q", "k", "v"), place=PLACE, x="x", out="qkv", k=64, n=192, bias=False),
        Attention(
            q=("qkv", 0, 64),
            k=("qkv", 64, 64),
            v=("qkv", 128, 64),
            out="y",
            heads=1,
            head_dim=64,
            place=PLACE,
            keys=PLACE,
        ),
    ]
    call = selected(steps).calls[-1]
    assert call.op == "attention"
    assert [call.inputs[name].offset for name in "qkv"] == [0, 64, 128]
    assert (call.shape["m"], call.shape["n"], call.shape["k_stride"]) == ("pixels1", "pixels1", 192)


def test_an_attention_in_8_bits_takes_the_form_that_its_card_is_fastest_at() -> None:
    parts: dict[str, Any] = {"heads": 1, "head_dim": 64, "place": PLACE, "keys": PLACE}
    steps: list[Step] = [Attention(q="q", k="k", v="v", out=name, **parts) for name in ("attn1", "attn3")]
    found = selected(steps, lambda kind, name: A8_SCORES_TOKEN if name == "attn1" else halves(kind, name))
    assert ops(found) == ["self_attention", "attention"]


def known_before(kind: Kind, layer: str) -> Format:
    return W8A8_SIGNED if layer in ("to_out", "ff.2") else eight_bits(kind, layer)


def attending(out: str) -> Attention:
    return Attention(q="q", k="k", v="v", out=out, heads=1, head_dim=64, place=PLACE, keys=PLACE)


def test_attention_and_geglu_round_for_a_reader_with_known_scales() -> None:
    steps: list[Step] = [
        attending("mixed"),
        linear("to_out", "mixed", "a"),
        norm("a", "b"),
        linear("ff.0", "b", "gated", n=128, activation="geglu"),
        linear("ff.2", "gated", "c", residual="a"),
    ]
    found = selected(steps, known_before, outputs=["c"])
    assert ops(found) == ["attention", "linear_w8a8", "layer_norm_quantize", "geglu_linear_w8a8", "linear_w8a8"]
    attention, out, _, gated, back = found.calls
    for maker, reader, layer in ((attention, out, "to_out"), (gated, back, "ff.2")):
        assert maker.shape["quantized"] is True
        assert maker.inputs["inverse"].name == f"{layer}.inverse"
        assert found.stored[f"{layer}.inverse"] == Inverse(layer=layer)
        assert reader.shape["static"] is True
        assert set(reader.inputs) >= {"x", "weight", "weight_scale", "bias"}
        assert "x_scale" not in reader.inputs


@pytest.mark.parametrize(
    "more", [[norm("mixed", "y")], [linear("other", "mixed", "y")], []], ids=["norm", "layer", "output"]
)
def test_what_others_want_too_is_rounded_by_rows(more: list[Step]) -> None:
    found = selected(
        [attending("mixed"), linear("to_out", "mixed", "a"), *more], known_before, ["y", "a"] if more else ["mixed"]
    )
    assert "quantized" not in found.calls[0].shape
    assert "quantize_per_token" in ops(found)
    assert not any(call.shape.get("static") for call in found.calls)
    weight = found.stored["to_out.weight"]
    assert isinstance(weight, Part)
    assert weight.weight.format == W8A8_TOKEN, "its weight has no scales of inputs in it"


def test_a_norm_cannot_round_so() -> None:
    found = selected([norm("x", "y"), linear("to_out", "y", "z")], known_before)
    assert ops(found) == ["layer_norm_quantize", "linear_w8a8"]
    assert "static" not in found.calls[1].shape


def test_the_prompt_s_keys_are_as_many_as_its_tokens() -> None:
    step = Attention(q="q", k="key", v="value", out="y", heads=2, head_dim=64, place=PLACE, keys=Place(rows="texts"))
    (call,) = selected([step]).calls
    assert (call.shape["n"], call.shape["v_stride"]) == ("tokens", 128)


def test_one_wide_head_has_its_own_kernel_and_other_heads_none() -> None:
    wide = Attention(q="q", k="k", v="v", out="y", heads=1, head_dim=512, place=PLACE, keys=PLACE)
    assert ops(selected([wide])) == ["attention_wide"]
    odd = Attention(q="q", k="k", v="v", out="y", heads=4, head_dim=40, place=PLACE, keys=PLACE)
    with pytest.raises(IncompatibleError, match="4 heads of 40 channels"):
        selected([odd])


def test_a_resnet_s_convolutions_read_what_its_norms_wrote_and_its_shortcut_two_pictures() -> None:
    shape = {"level": 0, "n": 64}
    steps: list[Step] = [
        GroupNorm(layer="norm1", level=0, x="x", x2="kept", c=64, c2=32, out="a", groups=32, eps=1e-5, silu=True),
        Conv(layer="conv1", x="a", out="b", c=96, time="time_vectors.0", **shape),  # type: ignore[arg-type]
        GroupNorm(layer="norm2", level=0, x="b", c=64, out="c", groups=32, eps=1e-5, silu=True),
        Conv(layer="shortcut", x="x", x2="kept", out="d", c=64, c2=32, kernel=1, **shape),  # type: ignore[arg-type]
        Conv(layer="conv2", x="c", out="e", c=64, residual="d", **shape),  # type: ignore[arg-type]
    ]
    found = selected(steps)
    assert ops(found) == [
        "group_norm_silu_quantize", "conv_w8a8", "group_norm_silu_quantize",
        "quantize_per_image", "quantize_per_image", "conv_w8a8", "conv_w8a8",
    ]  # fmt: skip
    assert set(found.calls[5].inputs) >= {"x", "x_scale", "x2", "x2_scale", "weight", "weight_scale", "bias"}
    assert found.calls[1].shape["time"] is True
    mixed = selected(steps, lambda kind, layer: FLOAT16 if layer == "shortcut" else W8A8_PICTURE)
    assert [call.op for call in mixed.calls if call.layer == "shortcut"] == ["conv_f16"]
    weight = selected(steps, lambda kind, layer: W8 if layer == "shortcut" else W8A8_PICTURE)
    assert [call.op for call in weight.calls if call.layer == "shortcut"] == ["conv_f16"], "no kernel for two pictures"


def test_outputs_are_float32_and_other_channels_come_in_sixteens() -> None:
    steps: list[Step] = [
        Conv(layer="in", level=0, x="latents", out="a", c=4, n=4),
        Conv(layer="out", level=0, x="a", out="prediction", c=4, n=4),
    ]
    first, last = selected(steps, halves, outputs=["prediction"]).calls
    assert (first.shape["c"], first.shape["n"], last.shape["c"], last.shape["n"]) == (16, 16, 16, 4)
    assert ("out_dtype" in first.shape, last.shape["out_dtype"]) == (False, "float32")


def test_upsampling_names_the_level_that_it_reaches() -> None:
    step = Conv(layer="up", level=2, x="x", out="y", c=64, n=64, upsample_to=1)
    assert selected([step], halves).calls[-1].shape["upsample_to"] == ("height1", "width1")


def test_a_format_without_a_kernel_is_refused_by_the_layer_s_name() -> None:
    with pytest.raises(IncompatibleError, match=r"mid.proj is to be wf8af8_dynamic_token, which .* no kernel for"):
        selected([linear("mid.proj", "x", "y")], lambda kind, layer: FP8_TOKEN)
