"""Reading the programs in an engine file: no GPU, no library, and not the weights.

No document describes the text. So nothing here raises for a form that it does not know: such a line is left out, and an
engine without a readable program is `None`. Tests hold what is read to what was asked for, for the library version they
name.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from .program import Compiled, Operation, Program, Region, Tensor

_START = b"header {\n"
# Programs lie together at the engine's start; gigabytes of weights follow, which are not searched.
_REACH = 256 << 20
_LIST = r'\{((?:[^"{}]|"[^"]*")*)\}'
_HEADER = re.compile(r"^header \{\n(.*?)^\}", re.S | re.M)
_BLOCK = re.compile(r"^(main|shape_main) \{\n(.*?)^\}", re.S | re.M)
_ACCELERATORS = re.compile(rf"^ *accelerators={_LIST}", re.M)
_REGION = re.compile(r"^ *region = \{ name=(\S+) size=(\d{1,18}) (.*?)\}$", re.M)
_TENSOR = re.compile(r"^ *(?:sub_)?tensor=\{ (.*)\}$", re.M)
_NAME = re.compile(r' name="([^"]+)"')
_TYPE = re.compile(r" type=(\w+)")
_DIMS = re.compile(rf" dims={_LIST}")
_PLACE = re.compile(r' offset=(\d{1,18}) .*?region="?([^" ]*)"? ')
_OPERATION = re.compile(r'^ *(\w+)=\{ name="?([^" ]+)', re.M)
_INPUTS = re.compile(rf" input(?:_args)?={_LIST}")
_OUTPUTS = re.compile(rf" output(?:_args)?={_LIST}")
_LAYERS = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SOURCE = re.compile(r' src="(-?\d{1,18})i64"')
_ALPHA = re.compile(r" alpha=([0-9A-Fa-f]{8}) ")
_QUOTED = re.compile(r'"([^"]+)"')
_DIM = re.compile(r'"([^"]+)"|(\d{1,18})')
_PREFIX = "__myl_"


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
    while (at := content.find(_START, at, at + _REACH)) >= 0:
        end = content.find(b"\0", at, at + _REACH)
        end = min(len(content), at + _REACH) if end < 0 else end
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
            alpha=struct.unpack(">f", bytes.fromhex(alpha[1]))[0] if (alpha := _ALPHA.search(line)) else None,
        )
