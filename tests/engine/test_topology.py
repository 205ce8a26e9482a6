"""The walk over a U-Net's blocks: held to diffusers' module tree, and the ground floor's own walk held to it."""

from typing import get_args

import pytest

from pocketxl.engine.architecture import SizeIds
from pocketxl.engine.topology import BlockKind
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.kernels.sdxl_layers import Attention, Conv, Linear, UNetName, layers

from ..fixtures.networks import UNETS, unet_pair


@pytest.mark.parametrize("kind", UNETS)
def test_the_blocks_are_the_modules_of_diffusers(kind: str) -> None:
    pair = unet_pair(kind)
    lists = tuple(BlockKind)
    theirs = {
        name: module
        for name, module in pair.theirs.named_modules()
        if name.split(".")[-2:-1] and name.split(".")[-2] in lists
    }
    blocks = {block.name: block for block in pair.architecture.blocks()}
    assert set(blocks) == set(theirs)
    for name, block in blocks.items():
        module = theirs[name]
        if block.kind is BlockKind.RESNET:
            assert (module.in_channels, module.out_channels) == (block.in_channels, block.out_channels)
        elif block.kind is BlockKind.TRANSFORMER:
            assert module.proj_in.in_features == block.out_channels
            assert [b.attn2.heads for b in module.transformer_blocks] == [block.heads] * block.depth


@pytest.mark.parametrize("model", get_args(UNetName))
def test_the_kernels_walk_has_the_same_layers_in_the_same_order(model: UNetName) -> None:
    unet = read_settings(BUNDLED / model).unet_architecture
    expected: list[tuple[str, int, int, int]] = []
    for block in unet.blocks():
        match block.kind:
            case BlockKind.RESNET:
                expected.append(("conv1", block.in_channels, block.out_channels, 0))
                if block.in_channels != block.out_channels:
                    expected.append(("shortcut", block.in_channels, block.out_channels, block.skip_channels))
                expected.append(("conv2", block.out_channels, block.out_channels, 0))
            case BlockKind.TRANSFORMER:
                width = block.out_channels
                expected += [("proj_in", width, width, 0), *[("cross", block.heads, 0, 0)] * block.depth]
                expected.append(("proj_out", width, width, 0))
            case BlockKind.DOWNSAMPLER | BlockKind.UPSAMPLER:
                role = "down" if block.kind is BlockKind.DOWNSAMPLER else "up"
                expected.append((role, block.in_channels, block.out_channels, 0))
    found: list[tuple[str, int, int, int]] = []
    for layer in layers(model, height=1024, width=1024):
        match layer:
            case Conv(role="in" | "out"):
                pass
            case Conv():
                found.append((layer.role, layer.c_in, layer.c_out, layer.c_kept))
            case Linear(role="proj_in" | "proj_out"):
                found.append((layer.role, layer.k, layer.n, 0))
            case Attention(cross=True):
                found.append(("cross", layer.heads, 0, 0))
    assert found == expected


def test_size_ids_are_counted() -> None:
    assert {ids: ids.numbers for ids in SizeIds} == {SizeIds.SIZE_CROP_TARGET: 6, SizeIds.SIZE_CROP_SCORE: 5}
