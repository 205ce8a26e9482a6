"""The compiled programs inside a TensorRT for RTX engine, as typed values.

An engine carries its program as text, beside its kernels and its weights: operations with the types of what goes in and
out, the regions of its working memory (the arena) at the profile's largest sizes, the GPU generations. No document
describes the text. So nothing here raises for a form that it does not know: such a line is left out, and an engine
without a readable program is `None`. Tests hold what is read to what was asked for, for the library version they name.
"""

import math
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_START = b"header {\n"
_LIST = r'\{((?:[^"{}]|"[^"]*")*)\}'
_HEADER = re.compile(r"^header \{\n(.*?)^\}", re.S | re.M)
_BLOCK = re.compile(r"^(main|shape_main) \{\n(.*?)^\}", re.S | re.M)
_ACCELERATORS = re.compile(rf"^ *accelerators={_LIST}", re.M)
_REGION = re.compile(r"^ *region = \{ name=(\S+) size=(\d+) (.*?)\}$", re.M)
_TENSOR = re.compile(r"^ *(?:sub_)?tensor=\{ (.*)\}$", re.M)
_NAME = re.compile(r' name="([^"]+)"')
_TYPE = re.compile(r" type=(\w+)")
_DIMS = re.compile(rf" dims={_LIST}")
_PLACE = re.compile(r' offset=(\d+) .*?region="?([^" ]*)"? ')
_OPERATION = re.compile(r'^ *(\w+)=\{ name="?([^" ]+)', re.M)
_INPUTS = re.compile(rf" input(?:_args)?={_LIST}")
_OUTPUTS = re.compile(rf" output(?:_args)?={_LIST}")
_LAYERS = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SOURCE = re.compile(r' src="(-?\d+)i64"')
_QUOTED = re.compile(r'"([^"]+)"')
_DIM = re.compile(r'"([^"]+)"|(\d+)')
_LAUNCHED = ("function", "runtime_function", "runtime_fusion")
_PRODUCTS = ("corrltn", "fully_connected")
_ATTENTION = "_gemm_mha"
_PREFIX = "__myl_"
_BYTES = {
    "double": 8, "int64": 8, "float": 4, "int32": 4, "half": 2, "bfloat16": 2, "bf16": 2, "int8": 1, "uint8": 1,
    "bool": 1, "fp8": 1, "fp8e4m3": 1, "int4": 0.5, "fp4": 0.5,
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
    def products(self) -> tuple[Product, ...]:
        """Convolutions and matrix products, those inside fusions too; attentions are not among them."""
        return tuple(
            Product(name=o.name, kind=o.kind, factors=p.types(o.inputs[:2]), result=(*p.types(o.outputs), UNKNOWN)[0])  # type: ignore[arg-type]
            for p in self.programs
            for o in p.operations
            if o.kind in _PRODUCTS and len(o.inputs) > 1
        )


def read_compiled(engine: Path) -> Compiled | None:
    """The programs of an engine file, which is mapped, not read into memory; None if there is none to be read."""
    with engine.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return None
        with content:
            programs = tuple(read_program(text) for text in _texts(content))
    return Compiled(programs=programs) if any(not p.fusion for p in programs) else None


def read_program(text: str) -> Program:
    """One program's text; what is not understood is left out."""
    header = (_HEADER.search(text) or [text, ""])[1]
    blocks = {match[1]: match[2] for match in _BLOCK.finditer(text)}
    accelerators = _ACCELERATORS.search(header)
    return Program(
        architectures=tuple(accelerators[1].split()) if accelerators else (),
        regions=tuple(
            Region(name=name, size=int(size), on_device="place=accelerator" in rest, constant="constant=true" in rest)
            for name, size, rest in _REGION.findall(header)
        ),
        tensors={t.name: t for line in _TENSOR.findall(text) if (t := _tensor(line)) is not None},
        operations=tuple(_operations(blocks.get("main", ""))),
        shapes=tuple(_operations(blocks.get("shape_main", ""))),
    )


def _texts(content: mmap.mmap) -> Iterator[str]:
    at = 0
    while (at := content.find(_START, at)) >= 0:
        end = content.find(b"\0", at)
        end = len(content) if end < 0 else end
        yield content[at:end].decode("latin1")
        at = end


def _tensor(line: str) -> Tensor | None:
    line = f" {line} "
    name, type_, dims, place = (pattern.search(line) for pattern in (_NAME, _TYPE, _DIMS, _PLACE))
    if name is None or type_ is None or dims is None:
        return None
    return Tensor(
        name=name[1],
        type=type_[1],
        dims=tuple(symbol or int(number) for symbol, number in _DIM.findall(dims[1])),
        region=place[2] if place else "",
        offset=int(place[1]) if place else 0,
    )


def _operations(block: str) -> Iterator[Operation]:
    for line in block.splitlines():
        if (found := _OPERATION.match(line)) is None:
            continue
        inputs, outputs = (
            tuple(_QUOTED.findall(ends[1])) if (ends := pattern.search(line)) else () for pattern in (_INPUTS, _OUTPUTS)
        )
        source = _SOURCE.search(line)
        yield Operation(
            kind=found[1],
            name=found[2].removeprefix(_PREFIX),
            inputs=inputs,
            outputs=outputs,
            layers=tuple(_LAYERS.findall(line)),
            constant=int(source[1]) if source else None,
        )
