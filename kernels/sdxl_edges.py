"""Calls beside the loop of a U-Net's layers, on one size each: its ends, text encoders, conditioner and VAE.

Between them they ask for every op that only these need, and for the widths that SDXL's have there.
"""

from collections.abc import Iterator

Value = int | float | str | bool | tuple[int, int]


def edges() -> Iterator[tuple[str, dict[str, Value]]]:
    """Op and the keyword arguments of its plan, without `arch`."""
    yield from _unet()
    yield from _text_encoders()
    yield from _vae()


def _unet() -> Iterator[tuple[str, dict[str, Value]]]:
    latents = {"b": 2, "h": 128, "w": 128}
    yield "read_pixels", {**latents, "c": 4, "padded": 16}
    yield "conv_f16", {**latents, "c": 16, "n": 320}  # 4 channels and zeros
    yield "conv_f16", {**latents, "c": 320, "n": 4, "out_dtype": "float32"}
    for c, c2, side in ((1280, 1280, 32), (1280, 640, 32), (640, 320, 64), (320, 320, 128)):
        picture: dict[str, Value] = {"b": 2, "h": side, "w": side, "c": c, "c2": c2, "groups": 32, "eps": 1e-5}
        yield "group_norm_silu_quantize", picture
        yield "group_norm_silu", picture
    yield "linear_f16", {"m": 2, "n": 1280, "k": 2816, "activation": "silu"}
    yield "linear_f16", {"m": 154, "n": 1280, "k": 2048, "bias": False}
    for tokens, width in ((8192, 640), (2048, 1280)):  # where activations are not quantized
        yield "layer_norm", {"m": tokens, "c": width, "eps": 1e-5}
        yield "geglu", {"m": tokens, "n": 4 * width}


def _text_encoders() -> Iterator[tuple[str, dict[str, Value]]]:
    for width, activation in ((768, "quick_gelu"), (1280, "gelu")):
        rows = {"m": 2 * 77}
        wide = 3 * width
        yield "layer_norm", {**rows, "c": width, "eps": 1e-5}
        yield "attention", {
            "batch": 2, "m": 77, "n": 77, "heads": width // 64, "causal": True,
            "q_stride": wide, "k_stride": wide, "v_stride": wide,
        }  # fmt: skip
        yield "linear_f16", {**rows, "n": 3 * width, "k": width}
        yield "linear_f16", {**rows, "n": width, "k": width, "residual": True}
        yield "linear_f16", {**rows, "n": 4 * width, "k": width, "activation": activation}
        yield "activate", {**rows, "n": 4 * width, "activation": activation}  # behind products of 8 bits


def _vae() -> Iterator[tuple[str, dict[str, Value]]]:
    for side, c, n in ((128, 512, 512), (256, 512, 512), (512, 512, 256), (512, 256, 256), (1024, 256, 128)):
        picture = {"b": 1, "h": side, "w": side, "c": c, "n": n}
        yield "conv_f16", {**picture, "residual": True}
        if c != n:
            yield "conv_f16", {**picture, "kernel": 1}
    yield "conv_f16", {"b": 1, "h": 128, "w": 128, "c": 512, "n": 512, "upsample_to": (256, 256)}
    yield "conv_f16", {"b": 1, "h": 1024, "w": 1024, "c": 128, "n": 3, "out_dtype": "float32"}
    yield "linear_f16", {"m": 16384, "n": 1536, "k": 512}
    yield "linear_f16", {"m": 16384, "n": 512, "k": 512, "residual": True}
