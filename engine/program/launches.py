"""What a program launches at given addresses: a flat list, for a stream or for the capture of a graph.

A launch names a binary. How that was made is the build's business; here it has parameters in order, and behind them the
null pointers for what its compiler has added.
"""

import ctypes
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...kernels.architecture import Architecture, architecture
from ...kernels.errors import UnsupportedArchitectureError
from ...kernels.launch import DTYPES, Argument, LaunchPlan
from ..errors import IncompatibleError, IntegrityError
from ..folder.described import REBUILD
from .calls import PlannedCall
from .program import BinarySpec, Program

Parameter = ctypes.c_uint64 | ctypes.c_int32 | ctypes.c_float
Addresses = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class KernelLaunch:
    """One launch. `grid`: blocks in x, y, z. `call`: the index of the call that it belongs to."""

    binary: str
    grid: tuple[int, int, int]
    parameters: tuple[Parameter, ...]
    call: int


PORTABLE = 80
"""The compute capability that portable kernels are for: every later one takes them."""
_MOST_PTX = 1 << 24
"""Bytes of one kernel's text; ours have a tenth of a million."""


def choose_binaries(
    program: Program, capability: tuple[int, int], gpu: str
) -> tuple[Architecture, Mapping[str, BinarySpec]]:
    """The binaries for a GPU: its own, else those of the largest smaller minor of its major, which it runs as well.

    Else the portable ones, if there are any and the GPU is later than what they are for. `capability`: (8, 9). `gpu`:
    its name, for the message. Raises `IncompatibleError` where there are none.
    """
    major, minor = capability
    there = sorted(int(key) for key in program.binaries)
    fitting = [sm for sm in there if sm // 10 == major and sm % 10 <= minor]
    names = ", ".join(f"{sm // 10}.{sm % 10}" for sm in there) or "none"
    if not fitting and program.portable and 10 * major + minor >= PORTABLE:
        return architecture(PORTABLE), program.portable
    if not fitting:
        raise IncompatibleError(
            f"this engine has kernels for compute capability {names}, and this {gpu} has {major}.{minor}; build it for "
            "this GPU, or build with --target cpu"
        )
    try:
        return architecture(fitting[-1]), program.binaries[str(fitting[-1])]
    except UnsupportedArchitectureError as error:
        raise IncompatibleError(f"{error}; install the pocketxl that built the engine, or build it again") from error


def ptx_of(content: bytes, name: str) -> bytes:
    """The text of a portable kernel, from the kernels' file. Raises `IntegrityError`."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(content, _MOST_PTX)
    except zlib.error:
        text = b""
    if not text or not reader.eof:
        raise IntegrityError(f"the portable kernel {name} is damaged; {REBUILD}")
    return text


def launch_list(
    calls: Iterable[PlannedCall],
    addresses: Addresses,
    scratch: Iterable[Addresses],
    binaries: Mapping[str, BinarySpec],
) -> Iterator[KernelLaunch]:
    """Every launch of the calls in order.

    `addresses`: of every value and weight. `scratch`: for each call, of the scratch buffers of its plan. Raises
    `IncompatibleError` for a binary that is not among `binaries`.
    """
    names: dict[int, list[str]] = {}
    for i, (planned, own) in enumerate(zip(calls, scratch, strict=True)):
        plan = planned.plan
        if id(plan) not in names:
            names[id(plan)] = list(_binaries(plan, planned.call.layer, binaries))
        where = dict(own)
        for name, operand in planned.call.inputs.items():
            where[name] = addresses[operand.name] + operand.offset * DTYPES[plan.inputs[name].dtype][0]
        for name, value in planned.call.outputs.items():
            where[name] = addresses[value]
        for name, launch in zip(names[id(plan)], plan.launches, strict=True):
            hidden = (ctypes.c_uint64(0),) * binaries[name].hidden
            given = tuple(_parameter(value, where) for value in launch.arguments.values() if value is not None)
            yield KernelLaunch(binary=name, grid=launch.grid, parameters=given + hidden, call=i)


def _binaries(plan: LaunchPlan, layer: str, binaries: Mapping[str, BinarySpec]) -> Iterator[str]:
    for variant in plan.variants:
        if variant.name not in binaries:
            raise IncompatibleError(
                f"{layer} needs the kernel {variant.name}, which this engine lacks: it was made by another release's "
                "tables; build it again with `pocketxl build`"
            )
        yield variant.name


def _parameter(value: Argument, where: Addresses) -> Parameter:
    if isinstance(value, str):
        return ctypes.c_uint64(where[value])
    if isinstance(value, float):
        return ctypes.c_float(value)
    assert isinstance(value, int)
    return ctypes.c_int32(value)
