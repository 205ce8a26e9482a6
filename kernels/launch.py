"""What a launch is: the one description that the torch op, the compiler and a torch-free engine share.

A `Plan` is everything one op does on the GPU, computed from shapes and dtypes alone: the buffers it reads, writes and
needs between its kernels, and the launches in order. This module and the `plan.py` of every op import neither torch
nor Triton, so that an engine can use them with nothing but compiled binaries and the CUDA driver.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from .errors import KernelError

Constant = int | float | bool | None
Argument = str | int | float | None

# Names of dtypes as numpy and torch write them: bytes of one element, and Triton's type of a pointer to it.
DTYPES: Final[dict[str, tuple[int, str]]] = {
    "int8": (1, "*i8"),
    "uint8": (1, "*u8"),
    "int32": (4, "*i32"),
    "float16": (2, "*fp16"),
    "bfloat16": (2, "*bf16"),
    "float32": (4, "*fp32"),
    "float8_e4m3fn": (1, "*fp8e4nv"),
}
ALIGNMENT: Final = 16  # bytes; every buffer begins at a multiple


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A contiguous tensor on the GPU."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return prod(self.shape) * DTYPES[self.dtype][0]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One kernel launch.

    `kernel`: `folder.function`: the function in that op's `kernel.py`. `arguments`: values of the kernel's run-time
    parameters, in its order: the name of a buffer, an integer (32 bit), a float (32 bit), or None for an optional
    pointer that is absent (which is compiled in). `constants`: the kernel's compile-time parameters. `grid`: programs
    in x, y, z. `num_warps`: warps of a program. `num_stages`: depth of the software pipeline. `varying`: integers that
    change from call to call (rows, tokens, batch) and that the binary must not be specialised to; the kernel lists them
    in `do_not_specialize`. All other integers are specialised to being divisible by 16 where they are. `instruction`:
    operand type of the matrix instruction that the inner loop must compile to: s8, f16, bf16, e4m3.
    """

    kernel: str
    arguments: Mapping[str, Argument]
    constants: Mapping[str, Constant]
    grid: tuple[int, int, int]
    num_warps: int
    num_stages: int
    varying: frozenset[str] = frozenset()
    instruction: str | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is compiled: a kernel with the types of its arguments and its constants. Equal variants share a binary."""

    kernel: str
    types: tuple[tuple[str, str], ...]  # run-time parameters in order: name, Triton type
    divisible: tuple[str, ...]
    constants: tuple[tuple[str, Constant], ...]
    num_warps: int
    num_stages: int
    instruction: str | None = None

    @property
    def name(self) -> str:
        """A file name: the kernel's, and a digest of everything else."""
        text = json.dumps([self.types, self.divisible, self.constants, self.num_warps, self.num_stages])
        return f"{self.kernel.split('.')[1]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One op on given shapes: its buffers and its launches, in order.

    `operations` and `traffic` are what the op has to do at the least, for rooflines: multiply-adds times two by operand
    type, and bytes read and written.
    """

    op: str
    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]
    launches: tuple[Launch, ...]
    scratch: Mapping[str, Buffer] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)

    @property
    def buffers(self) -> dict[str, Buffer]:
        """All buffers by name."""
        return {**self.inputs, **self.outputs, **self.scratch}

    @property
    def traffic(self) -> int:
        """Bytes of all inputs and outputs, each once."""
        return sum(buffer.size_bytes for buffer in (*self.inputs.values(), *self.outputs.values()))

    def variant(self, launch: Launch) -> Variant:
        """What must be compiled for a launch of this plan."""
        buffers = self.buffers
        types: list[tuple[str, str]] = []
        divisible: list[str] = []
        constants = dict(launch.constants)
        for name, value in launch.arguments.items():
            if value is None:
                constants[name] = None
            elif isinstance(value, str):
                types.append((name, DTYPES[buffers[value].dtype][1]))
                divisible.append(name)
            elif isinstance(value, float):
                types.append((name, "fp32"))
            else:
                if not 0 <= value < 2**31:
                    raise KernelError(f"{launch.kernel}: {name}={value} does not fit 32 bits")
                types.append((name, "i32"))
                if name not in launch.varying and value % 16 == 0:
                    divisible.append(name)
        return Variant(
            kernel=launch.kernel,
            types=tuple(types),
            divisible=tuple(divisible),
            constants=tuple(sorted(constants.items())),
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            instruction=launch.instruction,
        )

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What must be compiled for the whole plan."""
        return tuple(self.variant(launch) for launch in self.launches)


def cdiv(total: int, part: int) -> int:
    """How many parts cover the total."""
    return -(-total // part)
