"""A key of an adapter file in its two halves: which module it is of, in which spelling ever, and what of it.

lora_unet_input_blocks_4_1_proj_in.lora_down.weight               kohya, original layout
lora_unet_down_blocks_1_attentions_0_proj_in.alpha                kohya, diffusers' layout
unet.down_blocks.1.attentions.0.proj_in.lora_A.weight             PEFT, diffusers
unet.….attn1.processor.to_q_lora.down.weight                      diffusers before PEFT
text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight
diffusion_model.input_blocks.4.1.proj_in.lora_up.weight           ComfyUI
base_model.model.down_blocks.1.attentions.0.proj_in.lora_A.default.weight    PEFT alone
lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a            LyCORIS
"""

from typing import NamedTuple

MAX_KEY = 512
"""Characters; a longer key is of nothing that we know."""
DOWN, UP, MID, ALPHA, MAGNITUDE, BIAS = "down", "up", "mid", "alpha", "magnitude", "bias"

_PARTS = {
    **{f"{stem}.weight": part for part, stems in {
        DOWN: ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down"),
        UP: ("lora_up", "lora_B", "lora.up", "lora_linear_layer.up"),
        MID: ("lora_mid",),
        MAGNITUDE: ("lora_magnitude_vector",),
        "glora": ("a1", "a2", "b1", "b2", "bm"),
    }.items() for stem in stems},
    "alpha": ALPHA, "lora_alpha": ALPHA, "lora.alpha": ALPHA, "lora_linear_layer.alpha": ALPHA,
    "dora_scale": MAGNITUDE, "lora_magnitude_vector": MAGNITUDE,
    "lora_B.bias": BIAS, "lora_up.bias": BIAS, "diff_b": BIAS, "w_norm": BIAS, "b_norm": BIAS,
    "diff": "diff", "on_input": "ia3",
    "oft_blocks": "oft", "oft_diag": "oft", "oft_R": "oft", "oft_R.weight": "oft", "rescale": "oft", "boft_R": "oft",
    **{name: name for name in (
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    )},
}  # fmt: skip
"""How a key ends → what it holds."""
_NAMED = ("lora_A", "lora_B", "lora_magnitude_vector")
"""PEFT puts the adapter's name behind these."""
_LONGEST = 3

UNET, TE1, TE2 = "unet", "te1", "te2"
_PREFIXES = (
    ("base_model.model.", ""),
    ("lora_unet_", UNET), ("lora_unet.", UNET), ("lycoris_unet_", UNET), ("unet.", UNET),
    ("model.diffusion_model.", UNET), ("diffusion_model.", UNET),
    ("lora_te1_", TE1), ("lora_te_", TE1), ("lora_te2_", TE2),
    ("text_encoder_2.", TE2), ("text_encoder.", TE1),
    ("text_encoders.clip_l.transformer.", TE1), ("text_encoders.clip_g.transformer.", TE2),
    ("clip_l.", TE1), ("clip_g.", TE2),
)  # fmt: skip


class Key(NamedTuple):
    """What a key says."""

    place: str
    """`unet`, `te1` or `te2`."""
    module: str
    """Of the module within it, with `_` for every dot: spellings with dots and without are one."""
    part: str
    """What of the module, as one of the values of `_PARTS`."""


def read_key(key: str) -> Key | None:
    """The halves of a key; None for one that is no part of any kind of adapter known here. Linear time."""
    if len(key) > MAX_KEY:
        return None
    found = _cut(key)
    if found is None:
        return None
    module, part = found
    place = UNET
    for prefix, of in _PREFIXES:
        if module.startswith(prefix):
            module = module[len(prefix) :]
            if of:
                place = of
                break
    module = module.replace(".processor.", ".").replace(".", "_")
    if place != UNET:
        module = module.removeprefix("text_model_")  # transformers 5 leaves it out
    return Key(place, module, part)


def _cut(key: str) -> tuple[str, str] | None:
    """The module's half, and the part that the rest stands for."""
    pieces = key.split(".")
    if len(pieces) > 3 and pieces[-3] in _NAMED and pieces[-1] == "weight":
        del pieces[-2]
    for count in range(min(_LONGEST, len(pieces) - 1), 0, -1):
        part = _PARTS.get(".".join(pieces[-count:]))
        if part is not None:
            return ".".join(pieces[:-count]), part
    if len(pieces) > 3 and pieces[-3].endswith("_lora") and pieces[-1] == "weight" and pieces[-2] in (DOWN, UP):
        return ".".join(pieces[:-2]).removesuffix("_lora"), pieces[-2]
    return None
