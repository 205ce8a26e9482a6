"""Compile variants ahead of time, without a GPU, and say what came out.

Every binary is held to the architecture it is for: its shared memory, no register spilled to memory, and the matrix
instruction that its inner loop was written for.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .architecture import Architecture
from .errors import KernelError
from .execute import kernel_function
from .launch import ALIGNMENT, Variant

# Contraction of a*b+c is Triton's choice, and its default differs between releases: said here, or results would move.
FP_FUSION: Final = True

_OPERANDS: Final = {"s8": "s8.s8", "f16": "f16.f16", "bf16": "bf16.bf16", "e4m3": "e4m3.e4m3"}


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A compiled variant.

    `entry` is the function's name in the cubin; `shared` its dynamic shared memory in bytes; `spilled` the bytes of
    stack that a thread uses. `scratch` is global memory that Triton wants for itself, always 0 here.
    """

    variant: Variant
    arch: Architecture
    entry: str
    cubin: bytes
    ptx: str
    shared: int
    registers: int
    spilled: int
    scratch: int


class CompileError(KernelError):
    """A variant does not compile for an architecture, or not to what it was written for."""

    exit_code = 1


def compile_variant(variant: Variant, arch: Architecture) -> Binary:
    """Compile one variant for one architecture.

    Raises `CompileError`: Triton or ptxas refuse it.
    """
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    function = kernel_function(variant.kernel)
    if not hasattr(function, "create_binder"):
        raise CompileError("kernels cannot be compiled while TRITON_INTERPRET is set; unset it")
    types = dict(variant.types)
    constants = dict(variant.constants)
    order = list(function.arg_names)
    if missing := set(order) ^ {*types, *constants}:
        raise CompileError(f"{variant.kernel}: its launch and its parameters differ in {', '.join(sorted(missing))}")
    source = (GluonASTSource if function.is_gluon() else ASTSource)(
        function,
        {name: types.get(name, "constexpr") for name in order},
        {(order.index(name),): value for name, value in constants.items()},
        {(order.index(name),): [["tt.divisibility", ALIGNMENT]] for name in variant.divisible},
    )
    options = {
        "num_warps": variant.num_warps,
        "num_stages": variant.num_stages,
        "enable_fp_fusion": FP_FUSION,
    }
    try:
        with knobs.compilation.scope():
            # Lines of source would name the folders of whoever compiles, and were two thirds of a binary.
            knobs.compilation.disable_line_info = True
            compiled: Any = triton.compile(source, target=GPUTarget("cuda", arch.sm, 32), options=options)
    except Exception as error:
        raise CompileError(f"{variant.name} does not compile for sm_{arch.sm}: {error}") from error
    cubin = compiled.asm["cubin"]
    registers, spilled = _resources(cubin)
    return Binary(
        variant=variant,
        arch=arch,
        entry=compiled.metadata.name,
        cubin=cubin,
        ptx=compiled.asm["ptx"],
        shared=compiled.metadata.shared,
        registers=registers,
        spilled=spilled,
        scratch=compiled.metadata.global_scratch_size,
    )


def faults(binary: Binary) -> list[str]:
    """What is wrong with a binary; empty for one of the widths that the tables are made for."""
    found = unusable(binary)
    if binary.spilled:
        found.append(f"spills {binary.spilled} bytes a thread")
    operand = binary.variant.instruction
    if operand and not re.search(matrix_instruction(operand, binary.arch), binary.ptx):
        found.append(f"has no matrix instruction on {operand}")
    return found


def unusable(binary: Binary) -> list[str]:
    """Why a binary cannot run at all; what else is wrong with it costs time only."""
    found = []
    if binary.shared > binary.arch.shared_memory:
        found.append(
            f"needs {binary.shared} bytes of shared memory, sm_{binary.arch.sm} has {binary.arch.shared_memory}"
        )
    if binary.scratch:
        found.append(f"wants {binary.scratch} bytes of global scratch")
    return found


def matrix_instruction(operand: str, arch: Architecture) -> str:
    """A pattern of the PTX instruction that multiplies tiles of `operand` on an architecture."""
    family = r"wgmma\.mma_async\.sync\.aligned" if arch.wgmma else r"mma\.sync\.aligned"
    return rf"{family}\.[\w.]*{re.escape(_OPERANDS[operand])}"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of a thread, as the CUDA tool reports them."""
    from triton import knobs

    tool = knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin", delete=False) as file:
        file.write(cubin)
    try:
        text = subprocess.run(  # noqa: S603 - Triton's own tool on a file of ours
            [tool, "-res-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    finally:
        Path(file.name).unlink()
    match = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if match is None:
        raise CompileError(f"cannot read the registers of a binary from: {text!r}")
    return int(match[1]), int(match[2])
