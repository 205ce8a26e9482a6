"""What a value of the ONNX master is, in the terms of steps: rows of channels, seen in some form, or half of an idea.

A lowering goes through the graph once and gives each value one of these. `Rows` are in memory once a step has run (or
come from outside). The others are on the way to a step: a gate waits for what it is multiplied with.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ....engine.program.program import Along, Waves
from ....engine.program.sizes import Size
from .steps import Level, Place


class Form(Enum):
    """How a tensor of the graph presents rows of channels; in memory all forms of a value are the same bytes."""

    PICTURE = auto()
    """`[batch, channels, height, width]`"""
    PLANES = auto()
    """`[batch, channels, pixels]`"""
    TOKENS = auto()
    """`[batch, pixels or tokens, channels]`"""
    VECTOR = auto()
    """`[batch, channels]`"""
    COLUMN = auto()
    """`[batch, channels, 1, 1]`"""
    STEPS = auto()
    """`[steps, channels]`"""
    EACH_STEP = auto()
    """`[steps, 1, channels]`: the same for all pictures"""
    EACH_PICTURE = auto()
    """`[1, batch, channels]`: the same at all steps"""
    EVALUATIONS = auto()
    """`[steps, batch, channels]`"""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A value, `c` channels wide; `x2` and `c2`: the one whose channels follow. `upsample_to`: to grow to that level.

    `alone`: whether whoever reads this form is all that reads the value, as far as the forms before it go.
    `end`: of a text only the row where it ends is meant. Steps make all of its rows, and the host picks that one.
    """

    name: str
    c: int
    place: Place
    form: Form
    x2: str | None = None
    c2: int = 0
    upsample_to: Level | None = None
    alone: bool = True
    end: "End | None" = None

    @property
    def plain(self) -> bool:
        """Whether it lies in memory as it is."""
        return self.x2 is None and self.upsample_to is None

    def dims(self, form: Form | None = None) -> tuple[Size, ...]:
        """The shape of the tensor, in this form or another."""
        width, level = self.c + self.c2, self.place.level
        tokens = f"pixels{level}" if self.place.rows == "pixels" else "tokens"
        return {
            Form.PICTURE: ("batch", width, f"height{level}", f"width{level}"),
            Form.PLANES: ("batch", width, tokens),
            Form.TOKENS: ("batch", tokens, width),
            Form.VECTOR: ("batch", width),
            Form.COLUMN: ("batch", width, 1, 1),
            Form.STEPS: ("steps", width),
            Form.EACH_STEP: ("steps", 1, width),
            Form.EACH_PICTURE: (1, "batch", width),
            Form.EVALUATIONS: ("steps", "batch", width),
        }[form or self.form]


@dataclass(frozen=True, kw_only=True)
class Extents:
    """A shape, or a part of one."""

    dims: tuple[Size, ...]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A weight or bias, by its state-dict name; `form`: as it is, `[in, out]`, or `[channels, 1, 1]`."""

    layer: str
    part: str
    """`weight` or `bias`."""
    shape: tuple[int, ...]
    """As it is stored."""
    form: str = ""
    """Empty, `transposed` or `column`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """Numbers that the graph holds itself."""

    array: Any

    @property
    def numbers(self) -> list[Any]:
        """In one list."""
        return self.array.reshape(-1).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """`[batch, groups, rest]` of a picture."""

    x: Rows
    groups: int


@dataclass(frozen=True, kw_only=True)
class Normed:
    """A picture whose groups are normalised; `layer`: whose weight has scaled it, and whose bias is still to come."""

    x: Rows
    groups: int
    eps: float
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """`factor · x`."""

    x: Rows
    factor: float


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`sigmoid(factor · x)`."""

    x: Rows
    factor: float


@dataclass(frozen=True, kw_only=True)
class Half:
    """Half of the columns of x, the first (0) or the second (1); `gelu`: behind that function."""

    x: Rows
    index: int
    gelu: bool = False


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Ids of tokens, `[batch, tokens]`: an input."""

    name: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The row of a table for each id, to which that of its place is still to be added."""

    ids: Ids
    table: Parameter


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Which ids are `end`."""

    ids: Ids
    end: int


@dataclass(frozen=True, kw_only=True)
class End:
    """Where each text ends: at its first id `end`, or of None at the first of its largest."""

    ids: Ids
    end: int | None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """An input of few numbers, `[batch]`, `[steps]` or `[batch, count]`, by a factor. `spread`: with an axis more."""

    name: str
    along: Along
    count: int | None = None
    factor: float = 1.0
    spread: bool = False


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Numbers times frequencies, or the sines or cosines of these."""

    of: Numbers
    frequencies: tuple[float, ...]
    function: str = ""
    """Empty, `sin` or `cos`."""


@dataclass(frozen=True, kw_only=True)
class Waved:
    """All waves of numbers: `[batch or steps, width]`, or `[batch, count, width]` of several."""

    of: Numbers
    waves: Waves


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows side by side: an output of the component."""

    parts: tuple[Rows, ...]


Meaning = (
    Rows | Extents | Parameter | Constant | Grouped | Normed | Scaled | Gate | Half
    | Ids | Looked | Marks | End
    | Numbers | Wave | Waved | Columns
)  # fmt: skip
