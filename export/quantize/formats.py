"""How the numbers of a layer are stored and multiplied, as values: what targets declare and recipes ask for.

A value can say more than any target does so far: 4-bit integers in groups of 64, 8-bit floats, half precision.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """A kind of layer: those that hold a weight matrix, and attention, which multiplies what was computed."""

    LINEAR = "linear"
    CONV = "conv"
    EMBEDDING = "embedding"
    ATTENTION = "attention"
    """Of a token's queries to the keys and values of the same picture. In a format, what stands for the weight is keys,
    and in 8-bit floats values and shares too; no target rounds it but by one scale each."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight of `bits` a number; integers and 8-bit floats have scales, wider floats stand for themselves.

    `granularity` is what shares a scale: the tensor, an output channel (a row of an embedding), or `group` numbers in a
    row along the inputs. Raises `ValueError` for a group without its size or a size without groups.
    """

    bits: int
    kind: Literal["int", "float"] = "int"
    granularity: Literal["tensor", "channel", "group"] = "channel"
    group: int | None = None
    zero: bool = False
    """True where the numbers that share a scale share a zero point too (the range need not lie around 0)."""
    scale_bits: Literal[16, 32] = 32
    """Of the floats that scales are."""

    def __post_init__(self) -> None:
        if (self.granularity == "group") != (self.group is not None):
            raise ValueError(
                f"granularity is {self.granularity!r} and group is {self.group}; "
                "a size of groups goes with granularity='group', and with no other"
            )
        if self.bits < 2 or (self.group is not None and self.group < 1):
            raise ValueError(f"bits is {self.bits} and group is {self.group}; give 2 bits and a group of 1 at least")

    @property
    def scaled(self) -> bool:
        """True where numbers only mean something together with a scale."""
        return self.kind == "int" or self.bits < 16

    def bytes_of(self, shape: tuple[int, ...]) -> float:
        """Bytes of a weight of this shape, output channels first, and of its scales and zero points."""
        numbers = 1
        for length in shape:
            numbers *= length
        scales = {"tensor": 1, "channel": shape[0], "group": numbers / (self.group or 1)}[self.granularity]
        beside = self.scale_bits / 8 + (self.bits / 8 if self.zero else 0)
        return numbers * self.bits / 8 + (scales * beside if self.scaled else 0)

    def __str__(self) -> str:
        name = f"{'w' if self.kind == 'int' else 'wf'}{self.bits}"
        shared = {"channel": "", "tensor": "_tensor", "group": f"_g{self.group}"}[self.granularity]
        beside = ("_zero" if self.zero else "") + ("_half" if self.scale_bits == 16 else "")
        return name + (shared + beside if self.scaled else "")


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What a layer's input is rounded to before it is multiplied.

    `range`: `dynamic`, its own at every call, or `static`, a calibrated one (then the output is rounded too, unless the
    numbers are `signed`).
    `granularity` is what shares a range: the tensor, a channel (static ones only), a token, a picture of a batch
    (symmetric, as a token's), or as many numbers of a token as share a scale in the weight (`group`).
    """

    bits: int
    range: Literal["dynamic", "static"]
    kind: Literal["int", "float"] = "int"
    granularity: Literal["tensor", "channel", "token", "picture", "group"] = "tensor"
    signed: bool = False
    """Of static integers: int8 around 0, and the output stays in floats, as products of GPUs have it."""

    def __str__(self) -> str:
        shared = "" if self.granularity == "tensor" else f"_{self.granularity}"
        signed = "_signed" if self.signed else ""
        return f"{'a' if self.kind == 'int' else 'af'}{self.bits}_{self.range}{shared}{signed}"


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a layer's weight is stored, and what its input is multiplied in (None: in floats).

    Raises `ValueError` for a rounded input without a weight.
    """

    weight: Weight | None = None
    """None: as the recipe keeps its floats."""
    activation: Activation | None = None

    def __post_init__(self) -> None:
        if self.activation is not None and self.weight is None:
            raise ValueError(f"{self.activation} has no weight; say what the input is multiplied with")

    @property
    def quantized(self) -> bool:
        """True where the weight becomes numbers with a scale."""
        return self.weight is not None and self.weight.scaled

    @property
    def static(self) -> bool:
        """True where the range of the input must be known before."""
        return self.activation is not None and self.activation.range == "static"

    @property
    def ranged(self) -> bool:
        """True where every channel has a static range, before and behind the layer: a `StaticRange`."""
        how = self.activation
        return how is not None and self.static and how.kind == "int" and not how.signed

    @property
    def signed(self) -> bool:
        """True where the input has static scales, `[in channels]` of them, around 0, and the output none."""
        return self.static and not self.ranged

    def __str__(self) -> str:
        return f"{self.weight or 'keep'}{self.activation or ''}"


KEEP = Format()
"""As the recipe keeps its floats."""
FLOAT32 = Format(weight=Weight(bits=32, kind="float", granularity="tensor"))
FLOAT16 = Format(weight=Weight(bits=16, kind="float", granularity="tensor"))
W8 = Format(weight=Weight(bits=8))
"""int8 weight, one scale per output channel (per row of an embedding); computed in floats."""
W8A8_DYNAMIC = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="dynamic"))
"""int8 weight per output channel; the input is quantized by its own range at every call."""
W8A8_STATIC = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="static", granularity="channel"))
"""int8 weight per output channel; input and output are quantized by calibrated ranges, a scale for each channel."""
W8A8_SIGNED = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="static", signed=True))
"""int8 weight per output channel; the input is int8 around 0 by one calibrated range, or by a scale for each channel
where that costs no time; the output stays in floats."""
W8A8_SIGNED_CHANNEL = Format(
    weight=Weight(bits=8), activation=Activation(bits=8, range="static", granularity="channel", signed=True)
)
"""The same with a scale for each input channel in any case."""
W8A8_GROUP = Format(
    weight=Weight(bits=8, granularity="group", group=64),
    activation=Activation(bits=8, range="dynamic", granularity="group"),
)
"""int8 weight with a scale for 64 inputs, multiplied with inputs that have a range for the same 64 of every token."""
W4 = Format(weight=Weight(bits=4, granularity="group", group=64, zero=True))
"""4-bit weight with scale and zero point for 64 inputs; computed in floats."""
W4_HALVES = Format(weight=Weight(bits=4, granularity="group", group=64, scale_bits=16))
"""4-bit weight around 0 with a scale in half precision for 64 inputs; computed in floats."""
W4A8 = Format(
    weight=Weight(bits=4, granularity="group", group=64, zero=True),
    activation=Activation(bits=8, range="dynamic", granularity="group"),
)
"""The same weight, multiplied with inputs that have a range for the same 64 of every token."""
W4A8_TOKEN = Format(weight=W4_HALVES.weight, activation=Activation(bits=8, range="dynamic", granularity="token"))
"""The weight of `W4_HALVES`, and a range for every token."""
W8A8_TOKEN = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="dynamic", granularity="token"))
"""int8 weight per output channel, and a range for every token."""
W8A8_PICTURE = Format(weight=Weight(bits=8), activation=Activation(bits=8, range="dynamic", granularity="picture"))
"""int8 weight per output channel, and a range for every picture, around zero."""
A8_SCORES = Format(
    weight=Weight(bits=8, granularity="tensor"), activation=Activation(bits=8, range="static", signed=True)
)
"""Of attention: int8 keys and queries by a calibrated scale each; shares and values stay floats."""
A8_SCORES_TOKEN = Format(
    weight=Weight(bits=8, granularity="group", group=64),
    activation=Activation(bits=8, range="dynamic", granularity="token"),
)
"""Of attention: int8 keys with a scale for 64 tokens of a head, int8 queries with one for every token of a head; values
stay floats, and where a GPU sums halves faster, shares times values are summed in halves."""
FP8_TENSOR = Format(weight=Weight(bits=8, kind="float"), activation=Activation(bits=8, range="static", kind="float"))
"""e4m3 weight per output channel; the input is rounded to e4m3 by one calibrated scale."""
FP8_TOKEN = Format(
    weight=Weight(bits=8, kind="float"),
    activation=Activation(bits=8, range="dynamic", kind="float", granularity="token"),
)
"""e4m3 weight per output channel; every token has a scale."""
