"""What a network computes, layer by layer, with the values that go in and come out: the ONNX master, understood.

Values are in NHWC / token order: `[batch, height, width, channels]` and `[batch, tokens, channels]` are the same bytes.
A value is named by what makes it; the inputs of the component have the names in its spec (`latents`,
`key_values.3.key`), and a block of columns of one is `time_vectors.<i>`, in order.
Layers are named by their state-dict names without `.weight`.
"""

from dataclasses import dataclass, field
from typing import Literal

from ....engine.program.program import Vectors

Activation = Literal["geglu", "gelu", "quick_gelu", "silu"]
Level = int
"""Halvings of the latents' height and width; negative: doublings. See `engine.program.sizes`."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the rows of a value are: pixels of a level, tokens of the prompt (`texts`), pictures (`batch`).

    Of a conditioner also `steps`, or where anything depends on the picture `evaluations`: every step's every picture.
    """

    rows: Literal["pixels", "texts", "batch", "steps", "evaluations"] = "pixels"
    level: Level = 0


@dataclass(frozen=True, kw_only=True)
class Linear:
    """`activation(x @ weightᵀ + bias) + residual`; several layers on one x are one, their outputs side by side.

    `n`: all of their outputs; with GEGLU, which leaves half of them, those before it (values, then gates).
    """

    layers: tuple[str, ...]
    place: Place
    x: str
    out: str
    k: int
    n: int
    bias: bool
    residual: str | None = None
    activation: Activation | None = None


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, padded by half its kernel, plus `time` (a vector a picture) and `residual` (a picture).

    `level`: of x. `upsample_to`: the level to whose size x grows by nearest neighbours first. `x2`: the channels
    behind those of x, where the two were concatenated for this layer and others.
    """

    layer: str
    level: Level
    x: str
    out: str
    c: int
    n: int
    x2: str | None = None
    c2: int = 0
    kernel: int = 3
    stride: int = 1
    upsample_to: Level | None = None
    time: str | None = None
    residual: str | None = None
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class GroupNorm:
    """Over groups of channels and all pixels, then SiLU or not; `x2` as in `Conv`."""

    layer: str
    level: Level
    x: str
    out: str
    c: int
    groups: int
    eps: float
    silu: bool
    x2: str | None = None
    c2: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Over the channels of each row."""

    layer: str
    place: Place
    x: str
    out: str
    c: int
    eps: float


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention; `q`, `k`, `v` are values, or `(value, offset, width)`: so many columns of a wider one.

    `place`: of the queries. `keys`: of the keys.
    """

    q: str | tuple[str, int, int]
    k: str | tuple[str, int, int]
    v: str | tuple[str, int, int]
    out: str
    heads: int
    head_dim: int
    place: Place
    keys: Place
    causal: bool = False


@dataclass(frozen=True, kw_only=True)
class Activate:
    """`activation(x)`, where it stands behind a sum."""

    x: str
    out: str
    place: Place
    c: int
    activation: Activation


@dataclass(frozen=True, kw_only=True)
class Words:
    """What an input of ids stands for: for each a row of one table, and for its place one of another, added.

    `words`, `places`: the parameters' names. `end`: as `engine.program.program.Words`.
    """

    tensor: str
    words: str
    places: str
    shape: tuple[int, int, int]
    """Words, places, and the width of both tables."""
    end: int | None = None


@dataclass(frozen=True, kw_only=True)
class Vector:
    """What an input of vectors is: columns of the rows of a value, `c` wide, that the host makes."""

    value: str
    c: int
    place: Place
    vectors: Vectors


Step = Linear | Conv | GroupNorm | LayerNorm | Attention | Activate


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A component: its steps in the order in which they run, and the value that each of its outputs is."""

    steps: tuple[Step, ...]
    outputs: dict[str, tuple[str, ...]]
    """Output name in the spec → the values whose columns it has in turn; most are one."""
    ends: frozenset[str] = frozenset()
    """Outputs that are of each text the row where it ends."""
    words: Words | None = None
    vectors: dict[str, Vector] = field(default_factory=dict)
    """By input."""
