"""What macOS tells of its processors: `sysctl`'s numbers, by the level of performance on Apple's own."""

import ctypes
from collections.abc import Callable

from .cores import Processors


def macos_processors(ask: Callable[[str], int | None]) -> Processors | None:
    """Those that `ask` tells of: a number by its name, None where there is none. None if it does not tell.

    Level 0 is the fastest (Apple, "Tuning your code's performance for Apple silicon"). There are neither affinities
    nor quotas.
    """
    threads, cores = ask("hw.logicalcpu"), ask("hw.physicalcpu")
    if not threads or not cores:
        return None
    return Processors(
        machine=threads, allowed=threads, cores=cores, fast=min(cores, ask("hw.perflevel0.physicalcpu") or cores)
    )


def sysctl(name: str) -> int | None:
    """The system's number of that name."""
    value = ctypes.c_int32()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    try:
        failed = ctypes.CDLL("libSystem.dylib").sysctlbyname(
            name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
    except (OSError, AttributeError):
        return None
    return None if failed or size.value != ctypes.sizeof(value) else value.value
