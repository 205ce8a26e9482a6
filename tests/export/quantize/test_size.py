"""The estimate of a component's size follows the formats of its layers."""

import pytest

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.size import engine_bytes


class Shapes(dict[str, tuple[int, ...]]):
    def shape(self, name: str) -> tuple[int, ...]:
        return self[name]


AROUND = 8192
CONV, LINEAR, TABLE = 1280 * 640 * 9, 1280 * 640, 49408 * 768


@pytest.mark.parametrize(
    ("recipe", "role", "name", "shape", "size"),
    [
        ("fp32", Role.UNET, "a.conv1.weight", (1280, 640, 3, 3), 4 * CONV),
        ("fp16", Role.UNET, "a.conv1.weight", (1280, 640, 3, 3), 2 * CONV),
        ("int8", Role.UNET, "a.conv1.weight", (1280, 640, 3, 3), CONV + 4 * 1280),
        ("int8", Role.UNET, "a.conv_shortcut.weight", (1280, 640, 3, 3), 4 * CONV),
        ("int8", Role.UNET, "a.to_q.weight", (1280, 640), LINEAR + 4 * 1280),
        ("int8", Role.UNET, "a.to_q.bias", (1280,), 4 * 1280),
        ("int8", Role.CONDITIONER, "time_embedding.linear_1.weight", (1280, 640), 4 * LINEAR),
        ("int8", Role.TEXT_ENCODER, "embeddings.token_embedding.weight", (49408, 768), TABLE + 4 * 49408),
        ("int8", Role.TEXT_ENCODER, "embeddings.position_embedding.weight", (77, 768), 4 * 77 * 768),
        ("int8", Role.VAE_DECODER, "a.conv1.weight", (1280, 640, 3, 3), 4 * CONV),
    ],
)
def test_bytes_of_one_tensor(recipe: str, role: Role, name: str, shape: tuple[int, ...], size: int) -> None:
    assert engine_bytes(Shapes({name: shape}), RECIPES[recipe], role) == size + AROUND
