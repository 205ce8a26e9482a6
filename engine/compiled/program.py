"""The compiled programs inside a TensorRT for RTX engine, as typed values.

An engine carries its program as text (see `read`): operations with the types of what goes in and out, the regions of
its working memory (the arena) at the profile's largest sizes, the GPU generations.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_LAUNCHED = ("function", "runtime_function", "runtime_fusion")
_CONVOLUTION = "corrltn"
_PRODUCTS = (_CONVOLUTION, "fully_connected")
_ATTENTION = "_gemm_mha"
_BYTES = {
    "double": 8, "int64": 8, "float": 4, "int32": 4, "half": 2, "bfloat16": 2, "bf16": 2, "int8": 1, "uint8": 1,
    "bool": 1, "fp8_e4m3": 1, "int4": 0.5, "fp4": 0.5,
}  # fmt: skip
UNKNOWN = "?"
"""The type of a value that the program does not describe."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Memory that the program asks for: bytes at the profile's largest sizes, on the GPU or the host."""

    name: str
    size: int
    on_device: bool
    constant: bool


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value: its type (`half`, `float`, `int8` …), its dimensions (numbers and the program's symbols), its place."""

    name: str
    type: str
    dims: tuple[int | str, ...]
    region: str
    offset: int

    def bytes_at(self, symbols: Mapping[str, int]) -> int | None:
        """Its size, where its symbols mean these lengths; None if one is missing or the type is not known."""
        dims = [dim if isinstance(dim, int) else symbols.get(dim) for dim in self.dims]
        if None in dims or self.type not in _BYTES:
            return None
        return math.ceil(math.prod(dim for dim in dims if dim is not None) * _BYTES[self.type])


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step.

    `kind`: `corrltn` (a convolution), `fully_connected`, `function` (a kernel), `runtime_fusion`, …
    `name`: of the layer, or of the kernel (`SiluGnor`: a group norm with SiLU behind it). `inputs`, `outputs`: names of
    values. `layers`: the ONNX nodes that it stands for.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    constant: int | None = None
    """What `memset` writes."""
    alpha: float | None = None
    """What a product's sums are multiplied with before they are rounded to its result's type."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program: the whole network's, or that of a fusion in it."""

    architectures: tuple[str, ...]
    """`sm89`, …; `*` for a fusion, which has its program's."""
    regions: tuple[Region, ...]
    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    shapes: tuple[Operation, ...]
    """How the symbols in dimensions follow from the inputs' shapes."""

    @property
    def arena(self) -> tuple[Region, ...]:
        """The regions of its working memory on the GPU."""
        return tuple(region for region in self.regions if region.on_device and not region.constant)

    @property
    def allocates(self) -> tuple[str, ...]:
        """Values that get memory of their own during a call, beside the arena: what can be larger than 2 GiB does."""
        own = {region.name for region in self.arena if not region.size}
        return tuple(tensor.name for tensor in self.tensors.values() if tensor.region in own)

    @property
    def fusion(self) -> bool:
        """Whether it is a part that another program calls."""
        return self.architectures == ("*",)

    def types(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The types of values."""
        return tuple(self.tensors[name].type if name in self.tensors else UNKNOWN for name in names)


@dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution or a matrix product, and the types of its two factors and its result."""

    name: str
    kind: str
    factors: tuple[str, str]
    result: str
    alpha: float | None
    """What its sums are multiplied with before they are rounded to the result's type; a convolution may have a constant
    with a number for each channel beside it."""
    width: int | None
    """Products that are summed up to one number of the result."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """All programs of an engine."""

    programs: tuple[Program, ...]

    @property
    def architectures(self) -> tuple[str, ...]:
        """The GPU generations that it can run on."""
        return tuple(dict.fromkeys(a for p in self.programs if not p.fusion for a in p.architectures))

    @property
    def arena_bytes(self) -> int:
        """Working memory on the GPU at the profile's largest sizes; weights, inputs and outputs are not in it."""
        return max((sum(r.size for r in p.arena) for p in self.programs if not p.fusion), default=0)

    @property
    def allocates(self) -> tuple[str, ...]:
        """Values that are outside the arena; see `Program.allocates`."""
        return tuple(name for p in self.programs for name in p.allocates)

    @cached_property
    def constants(self) -> Counter[str]:
        """Type → bytes of weights, and of the small constants that the compiler made."""
        found: Counter[str] = Counter()
        for program in self.programs:
            places = {region.name for region in program.regions if region.constant}
            for tensor in program.tensors.values():
                if tensor.region in places:
                    found[tensor.type] += tensor.bytes_at({}) or 0
        return found

    @cached_property
    def kernels(self) -> Counter[str]:
        """Kernel → how often one call of the network starts it (`SiluGnor`, `CastSilu`, `_gemm_mha_v2`, …)."""
        return Counter(o.name for p in self.programs if not p.fusion for o in p.operations if o.kind in _LAUNCHED)

    @property
    def attentions(self) -> int:
        """Attentions that are one kernel."""
        return sum(count for name, count in self.kernels.items() if name.startswith(_ATTENTION))

    @cached_property
    def attention_factors(self) -> Counter[tuple[str, ...]]:
        """Types of queries, keys and values → how many attentions that are one kernel have them."""
        return Counter(
            p.types(o.inputs[:3]) for p in self.programs for o in p.operations if o.name.startswith(_ATTENTION)
        )

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """Convolutions and matrix products, those inside fusions too; attentions are not among them."""
        return tuple(
            _product(p, o) for p in self.programs for o in p.operations if o.kind in _PRODUCTS and len(o.inputs) > 1
        )


def _product(program: Program, operation: Operation) -> Product:
    first, second = operation.inputs[:2]
    left, right = program.types((first, second))
    sizes = [program.tensors[name].dims if name in program.tensors else () for name in (first, second)]
    summed = sizes[1][1:] if operation.kind == _CONVOLUTION else sizes[0][-1:]
    numbers = [dim for dim in summed if isinstance(dim, int)]
    return Product(
        name=operation.name,
        kind=operation.kind,
        factors=(left, right),
        result=(*program.types(operation.outputs), UNKNOWN)[0],
        alpha=operation.alpha,
        width=math.prod(numbers) if summed and len(numbers) == len(summed) else None,
    )
