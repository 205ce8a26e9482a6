"""The processor of this machine: what it is called, and what its integer products are like."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

# Integer kernels, and so an int8 engine's rounding, differ by these.
TELLING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

# Of oneDNN's names for what a processor can do: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control
_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}

# What Linux on x86-64 is asked before AMX may be used, with the numbers of its headers; ONNX Runtime asks the same.
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


def processor_name() -> str:
    """Its model and the instructions that integer kernels differ by, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()} ({platform.machine()})"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = _flags()
    found = [name for name in TELLING if name in flags]
    return f"{facts.get('model name') or platform.machine()} ({', '.join(found) or platform.machine()})"


def processor_facts() -> str:
    """All that is known of it: code that was made for one processor is for those that are told alike.

    Empty where the system does not tell what it can do: all of Apple's would be alike there, which differ.
    """
    if not _flags():
        return ""
    return f"{processor_name()}, {platform.machine()}: {' '.join(sorted(_flags()))}"


@cache
def _flags() -> frozenset[str]:
    """What the first core can do, in the kernel's words; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    return frozenset(next((v for key, _, v in named if key.strip() in ("flags", "Features")), "").split())


def adds_in_16_bits() -> bool:
    """Whether products of uint8 and int8 are added with saturation here: x86-64 without VNNI, or we cannot tell."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    flags = _flags()
    return not flags or not flags & {"avx_vnni", "avx512_vnni"}


def lacks_vnni() -> bool:
    """Whether this is an x86-64 processor that is known to lack VNNI."""
    return adds_in_16_bits() and bool(_flags())


def multiplies_bfloat16() -> bool:
    """Whether this processor is known to multiply numbers in bfloat16, and oneDNN is not told to leave that."""
    return bool(_flags() & {"avx512_bf16", "amx_bf16"}) and not forbids_bfloat16()


def forbids_bfloat16() -> bool:
    """Whether oneDNN is told to use no instructions for bfloat16, as if the processor had none."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BFLOAT16


@cache
def multiplies_in_tiles() -> bool:
    """Whether products of 8-bit matrices use AMX here: the processor has it, and Linux lets this process use it."""
    if "amx_int8" not in _flags():
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False
