"""What `program.json` of a component says: inputs, weights, calls in order, outputs.

A program is a straight list. Its sizes are symbols (see `sizes`), so that one program serves every picture; what a call
launches follows from the sizes at run time, through the op's `plan_<op>`, as it did when the kernels were compiled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..specs import SPARSE
from .sizes import Size

FORMAT = 1

Option = int | float | str | bool | tuple[int, ...] | tuple[str, ...] | None


class Layout(StrEnum):
    """How the host writes an input for the GPU, or reads an output."""

    ROWS = "rows"
    """As it is, in the value's dtype: rows of tokens, and pictures, which the op `read_pixels` turns into pixels."""
    PIXELS = "pixels"
    """Outputs only: `[batch, channels, height, width]` there, `[batch, height, width, channels]` here, where channels
    that the tensor does not have may follow."""
    COLUMNS = "columns"
    """`[batch, sum of widths]` there, a block `[batch, width]` for each value here; of outputs also `[steps, …]`."""
    WORDS = "words"
    """Inputs only: ids `[batch, tokens]` there, here for each of them the vector that `words.bin` has for it."""
    END_OF_TEXT = "end_of_text"
    """Outputs only: `[batch, width]` there, `[batch, tokens, width]` here, of which it is the row where a text ends."""
    VECTORS = "vectors"
    """Inputs only: numbers for each step, or for each picture, there; here columns of a row for each evaluation."""


@dataclass(frozen=True, kw_only=True)
class ValueSpec:
    """A value that no call makes: its shape in numbers and symbols, and its numpy dtype name."""

    name: str
    shape: tuple[Size, ...]
    dtype: str = "float16"


@dataclass(frozen=True, kw_only=True)
class Words:
    """`words.bin`: halves, a row of `width` for each of `words` ids, then one for each of `tokens` places of a text.

    A token's vector is the sum of two. The host adds them: a text has few of the rows, and they need no GPU's memory.
    `end`: the id that ends a text, where it is for the first time; None: the largest id of a text does.
    """

    words: int
    tokens: int
    width: int
    end: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return 2 * (self.words + self.tokens) * self.width


class Along(StrEnum):
    """What an input of vectors has a row for."""

    BATCH = "batch"
    STEPS = "steps"


@dataclass(frozen=True, kw_only=True)
class Waves:
    """A number x as the cosines, then the sines, of `factor · x` times each of the `frequencies`; or sines first."""

    frequencies: tuple[float, ...]
    factor: float = 1.0
    sines_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """How an input of vectors becomes columns of its value, which has a row for every picture of every step.

    `along`: whether the input has a row for each of the `steps`, the same for all pictures, or for each of the `batch`,
    the same at all steps. `first`, `width`: the columns; others may be those of other inputs. `waves`: what its numbers
    become first. The host does it: sines in float32, and few rows.
    """

    along: Along
    first: int
    width: int
    waves: Waves | None = None


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An input or output of the component, by the name in its spec, and the values that it is in the program.

    One value, or in `Layout.COLUMNS` one for each block of columns, in order.
    """

    tensor: str
    layout: Layout
    values: tuple[ValueSpec, ...]
    words: Words | None = field(default=None, metadata=SPARSE)
    """Of an input in `Layout.WORDS`."""
    vectors: Vectors | None = field(default=None, metadata=SPARSE)
    """Of an input in `Layout.VECTORS`."""


@dataclass(frozen=True, kw_only=True)
class WeightSpec:
    """A tensor of `weights.bin`, contiguous, `offset` bytes from its beginning (a multiple of 256)."""

    shape: tuple[int, ...]
    dtype: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What a call reads: a value or weight by its name, `offset` elements behind its beginning."""

    name: str
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of an op.

    `op`: its name in `kernels.sdxl.OPS`. `layer`: whose it is, for messages. `shape`: the keyword arguments of its
    `plan_<op>` but for `arch`; a size may be a symbol. `inputs`: an operand for each input of that plan. `outputs`: the
    name of the value that each of its outputs becomes; every value is made once.
    """

    op: str
    layer: str
    shape: Mapping[str, Option]
    inputs: Mapping[str, Operand]
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BinarySpec:
    """A compiled kernel in `kernels.bin`: `size` bytes from `offset` on; `entry` is the function's name in it.

    `shared`: bytes of dynamic shared memory of a block. `threads`: of a block. `hidden`: pointers behind the arguments
    that the compiler has added, which get 0 (Triton: two).
    """

    offset: int
    size: int
    entry: str
    shared: int
    threads: int
    hidden: int = 2


@dataclass(frozen=True, kw_only=True)
class Program:
    """A component. `tables`: digest of the kernels' configuration tables that the binaries were compiled by."""

    format: int = FORMAT
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    calls: tuple[Call, ...]
    weights: Mapping[str, WeightSpec] = field(default_factory=dict)
    binaries: Mapping[str, Mapping[str, BinarySpec]] = field(default_factory=dict)
    """Compute capability ("90") → `Variant.name` → its binary."""
    portable: Mapping[str, BinarySpec] = field(default_factory=dict, metadata=SPARSE)
    """Likewise, for GPUs that none of these runs on: PTX that their driver compiles, as zlib has compressed it."""
    tables: str = ""
