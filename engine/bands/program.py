"""What a banded component consists of: segments, and the values of the whole picture that stand between them.

A segment computes one value from others, for a band of rows at a time: at most one 3 × 3 convolution, and what is done
to single numbers before and after. What a group norm needs of the whole picture is known when the next segment begins,
because every band tells the mean and the variance of its channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

FORMAT = 1
MEAN, DEVIATION, ROWS = "norm.mean", "norm.deviation", "norm.rows"
"""A segment's inputs beside values: of each channel its group's mean, and the group's reciprocal standard deviation;
and 1 for a row inside the picture, 0 for one outside."""
SUM_MEAN, SUM_SQUARES = "sum.mean", "sum.squares"
"""A segment's outputs beside its value: of each channel the mean over the band, and the mean square around it."""

BFLOAT16 = "bfloat16"
ITEM_BYTES = {"float32": 4, BFLOAT16: 2, "float16": 2, "uint8": 1}
"""Type of a value → bytes of one of its numbers."""

SCORES = 1 << 22
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Axes of a picture with its channels behind the others, and of that one as it was before."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A group norm of a value: `groups` of neighbouring channels, `epsilon` added to the variance."""

    groups: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class BandValue:
    """A tensor of the whole picture, `[1, channels, rows, columns]`, or `[1, rows · columns, channels]` as `tokens`."""

    dtype: str
    """`float32`, `bfloat16`, `float16` or `uint8`."""
    channels: int
    scale: int
    """Rows of it per row of latents; columns likewise."""
    zero: int = 0
    """What stands for 0: a row outside the picture is full of it."""
    tokens: bool = False
    """Read as a whole by every band: attention's keys and values."""
    norm: Norm | None = None
    """The norm that the next segment applies to it."""

    @property
    def pixel_bytes(self) -> int:
        """Bytes at one of its own positions."""
        return self.channels * self.item_bytes

    @property
    def item_bytes(self) -> int:
        """Bytes of one of its numbers."""
        return ITEM_BYTES[self.dtype]

    @property
    def stored(self) -> str:
        """numpy's type for its numbers as they lie in memory: of `bfloat16`, which numpy lacks, the bits."""
        return "uint16" if self.dtype == BFLOAT16 else self.dtype


@dataclass(frozen=True, kw_only=True)
class Read:
    """A segment's input: the rows of `value` at its band, and `halo` rows on either side, or `downward` alone."""

    value: str
    halo: int
    downward: bool = field(default=False, metadata={"sparse": True})
    """For a convolution that halves: its first row begins where the band does."""

    @property
    def above(self) -> int:
        """How many rows above the band it has; below it are `halo`."""
        return 0 if self.downward else self.halo


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One graph: `file` computes `value` from what it reads."""

    file: str
    value: str
    reads: tuple[Read, ...]
    norm: str = ""
    """The value whose norm it applies; none if empty."""
    floats: bool = field(default=False, metadata={"sparse": True})
    """Whether it multiplies floats, and may do so in bfloat16 where a processor is faster in that."""


@dataclass(frozen=True, kw_only=True)
class BandProgram:
    """Segments in running order, and the values they read and give, among them the component's input and output.

    Where a component has several outputs, `output` has the channels of all, one after another.
    """

    format: int = FORMAT
    input: str
    output: str
    values: Mapping[str, BandValue]
    segments: tuple[Segment, ...]
    band_numbers: int = 1 << 21
    """Of the widest value that a segment reads or gives, in one band. Statistics are joined band by band, so that the
    last bits of a picture depend on it: an engine has its own."""

    scores: int = SCORES
    """Of attention in one band: its pixels times all."""

    channels_last: bool = field(default=False, metadata={"sparse": True})
    """How a pixel's numbers lie in memory and in what graphs are given and give: all its channels beside each other, as
    `[1, rows, columns, channels]`; else each channel's picture by itself."""

    def last_reader(self) -> dict[str, int]:
        """Value → index of the segment that reads it last."""
        return {read.value: index for index, segment in enumerate(self.segments) for read in segment.reads}

    @property
    def picture(self) -> int:
        """Rows of the picture per row of latents; columns likewise."""
        return max(value.scale for value in self.values.values())

    def scale(self, segment: Segment) -> int:
        """In whose rows a segment's bands are counted: the coarsest of what it reads and gives, per row of latents."""
        return min(self.values[name].scale for name in (segment.value, *(read.value for read in segment.reads)))
