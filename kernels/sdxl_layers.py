"""What one forward of SDXL's U-Nets computes, layer by layer, whatever computes it.

From the public architecture (diffusers' `unet/config.json` of `stable-diffusion-xl-base-1.0` and `…-refiner-1.0`). Time
embeddings and the keys and values of the prompt are computed once per picture and are no part of it. Held to diffusers
by tests/kernels/test_sdxl.py, operation for operation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

UNetName = Literal["base", "refiner"]
HEAD_DIM: Final = 64
LATENT_CHANNELS: Final = 4
PIXELS_PER_LATENT: Final = 8


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that tell the two U-Nets apart; levels from the highest resolution down."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    """Transformer blocks after each ResNet of a level; 0: the level has no attention."""
    middle: int
    resnets: int = 2
    groups: int = 32


SHAPES: Final[dict[UNetName, Shape]] = {
    "base": Shape(channels=(320, 640, 1280), depths=(0, 2, 10), middle=10),
    "refiner": Shape(channels=(384, 768, 1536, 1536), depths=(0, 4, 4, 0), middle=4),
}


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution of a (batch, height, width, c_in) picture; padded by half the kernel.

    `c_kept`: how many of the c_in channels are those that the way down kept. `upsample_to`: the picture grows by its
    nearest neighbours first, to this height and width: twice its own, or one less where a level has an odd size.
    `time`: a vector per image is added to the result. `residual`: a picture is.
    """

    role: str
    batch: int
    height: int
    width: int
    c_in: int
    c_out: int
    c_kept: int = 0
    kernel: int = 3
    stride: int = 1
    upsample_to: tuple[int, int] | None = None
    time: bool = False
    residual: bool = False

    @property
    def out_height(self) -> int:
        """Height of the result."""
        return -(-(self.upsample_to[0] if self.upsample_to else self.height) // self.stride)

    @property
    def out_width(self) -> int:
        """Width of the result."""
        return -(-(self.upsample_to[1] if self.upsample_to else self.width) // self.stride)

    @property
    def operations(self) -> int:
        """Twice the multiply-adds."""
        pixels = self.batch * self.out_height * self.out_width
        return 2 * pixels * self.c_in * self.c_out * self.kernel * self.kernel


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer on `rows` tokens, to `n` channels; `gated`: to 2n, of which GEGLU leaves n."""

    role: str
    rows: int
    k: int
    n: int
    bias: bool = True
    residual: bool = False
    gated: bool = False

    @property
    def operations(self) -> int:
        """Twice the multiply-adds."""
        return 2 * self.rows * self.k * self.n * (2 if self.gated else 1)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention with heads of 64; `cross`: to the prompt."""

    batch: int
    heads: int
    queries: int
    keys: int
    cross: bool

    @property
    def operations(self) -> int:
        """Twice the multiply-adds of both products."""
        return 4 * self.batch * self.heads * self.queries * self.keys * HEAD_DIM


@dataclass(frozen=True, kw_only=True)
class GroupNorm:
    """Normalised over groups of channels and all pixels; `silu` follows in ResNets, a linear in transformers."""

    batch: int
    height: int
    width: int
    channels: int
    groups: int
    silu: bool
    eps: float
    operations: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Every token normalised."""

    rows: int
    channels: int
    eps: float = 1e-5
    operations: int = 0


@dataclass(frozen=True, kw_only=True)
class Concatenate:
    """A picture beside the one that the way down kept, as channels."""

    pixels: int
    channels: tuple[int, int]
    operations: int = 0


Layer = Conv | Linear | Attention | GroupNorm | LayerNorm | Concatenate


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """Where the walk is: the size of the picture, and the prompt's tokens."""

    batch: int
    height: int
    width: int
    groups: int
    tokens: int

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    def conv(self, role: str, c_in: int, c_out: int, **more: Any) -> Conv:
        return Conv(role=role, batch=self.batch, height=self.height, width=self.width, c_in=c_in, c_out=c_out, **more)

    def norm(self, channels: int, silu: bool) -> GroupNorm:
        return GroupNorm(
            batch=self.batch, height=self.height, width=self.width, channels=channels, groups=self.groups, silu=silu,
            eps=1e-5 if silu else 1e-6,
        )  # fmt: skip


def layers(model: UNetName, *, height: int, width: int, batch: int = 1, tokens: int = 77) -> Iterator[Layer]:
    """The layers of one forward, in order.

    `model`: base or refiner. `height`: of the picture, in pixels; a multiple of 8. `width`: likewise. `batch`: latents,
    so 2 for one picture with guidance. `tokens`: of the prompt, a multiple of 77.
    """
    shape = SHAPES[model]
    sizes = [(height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)]
    for _ in shape.channels[1:]:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    levels = [_Picture(batch=batch, height=h, width=w, groups=shape.groups, tokens=tokens) for h, w in sizes]
    last = len(levels) - 1

    yield levels[0].conv("in", LATENT_CHANNELS, shape.channels[0])
    current = shape.channels[0]
    skips = [current]
    for level, (at, channels, depth) in enumerate(zip(levels, shape.channels, shape.depths, strict=True)):
        for _ in range(shape.resnets):
            yield from _resnet(at, current, channels)
            yield from _transformer(at, channels, depth)
            current = channels
            skips.append(current)
        if level < last:
            yield at.conv("down", current, current, stride=2)
            skips.append(current)
    yield from _resnet(levels[last], current, current)
    yield from _transformer(levels[last], current, shape.middle)
    yield from _resnet(levels[last], current, current)
    for level in range(last, -1, -1):
        at, channels = levels[level], shape.channels[level]
        for _ in range(shape.resnets + 1):
            kept = skips.pop()
            yield Concatenate(pixels=at.pixels, channels=(current, kept))
            yield from _resnet(at, current + kept, channels, kept)
            yield from _transformer(at, channels, shape.depths[level])
            current = channels
        if level:
            yield at.conv("up", current, current, upsample_to=sizes[level - 1])
    yield levels[0].norm(current, silu=True)
    yield levels[0].conv("out", current, LATENT_CHANNELS)


def _resnet(at: _Picture, c_in: int, c_out: int, c_kept: int = 0) -> Iterator[Layer]:
    yield at.norm(c_in, silu=True)
    yield at.conv("conv1", c_in, c_out, time=True)
    yield at.norm(c_out, silu=True)
    if c_in != c_out:
        yield at.conv("shortcut", c_in, c_out, c_kept=c_kept, kernel=1)
    yield at.conv("conv2", c_out, c_out, residual=True)


def _transformer(at: _Picture, channels: int, depth: int) -> Iterator[Layer]:
    if not depth:
        return
    rows, heads, pixels = at.pixels, channels // HEAD_DIM, at.height * at.width
    yield at.norm(channels, silu=False)
    yield Linear(role="proj_in", rows=rows, k=channels, n=channels)
    for _ in range(depth):
        yield LayerNorm(rows=rows, channels=channels)
        yield Linear(role="qkv", rows=rows, k=channels, n=3 * channels, bias=False)
        yield Attention(batch=at.batch, heads=heads, queries=pixels, keys=pixels, cross=False)
        yield Linear(role="self_out", rows=rows, k=channels, n=channels, residual=True)
        yield LayerNorm(rows=rows, channels=channels)
        yield Linear(role="q", rows=rows, k=channels, n=channels, bias=False)
        yield Attention(batch=at.batch, heads=heads, queries=pixels, keys=at.tokens, cross=True)
        yield Linear(role="cross_out", rows=rows, k=channels, n=channels, residual=True)
        yield LayerNorm(rows=rows, channels=channels)
        yield Linear(role="ff_in", rows=rows, k=channels, n=4 * channels, gated=True)
        yield Linear(role="ff_out", rows=rows, k=4 * channels, n=channels, residual=True)
    yield Linear(role="proj_out", rows=rows, k=channels, n=channels, residual=True)
