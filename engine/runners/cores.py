"""How many threads compute by default, and why: one for each fast physical core that this process may keep busy.

Two hardware threads of one core share its arithmetic, so that the second one only adds waiting. On processors with fast
and slow cores (Intel's P and E, big.LITTLE, Apple's) an operator that is cut into parts waits for its slowest part, so
slow ones are left to the system. Both are what llama.cpp, and torch on macOS, do too; we have not measured a hybrid.
"""

import os
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Processors:
    """What this process may run on, as the system tells."""

    machine: int
    """Hardware threads of the machine."""
    allowed: int
    """Those among them that the process's affinity allows."""
    cores: int
    """Physical cores that those belong to."""
    fast: int
    """Those among the cores that are of the fast kind; all of them where all are alike."""
    quota: float | None = None
    """How many processors' time a container allows; None: no limit."""

    @property
    def threads(self) -> int:
        """How many threads to compute with; of a quota's fraction a whole one, as the rest of it would be lost."""
        return max(1, self.fast if self.quota is None else min(self.fast, ceil(self.quota)))

    @property
    def reason(self) -> str:
        """Why it is as many, for people: `4 fast cores of 12, the container allows the time of 2`."""
        words = f"{self.cores} {'core' if self.cores == 1 else 'cores'}"
        if self.fast < self.cores:
            words = f"{self.fast} fast cores of {self.cores}" if self.fast > 1 else f"1 fast core of {self.cores}"
        if self.allowed > self.cores:
            words += f" with {self.allowed} hardware threads"
        if self.allowed < self.machine:
            words += f", the affinity allows {self.allowed} of {self.machine} hardware threads"
        if self.quota is not None:
            words += f", the container allows the time of {self.quota:.3g}"
        return words


def available_cores() -> int:
    """How many threads a component computes with unless it is told."""
    return processors().threads


def processors() -> Processors:
    """Those of this process, on this machine, now."""
    found: Processors | None = None
    if sys.platform == "linux":
        from .cores_linux import linux_processors

        found = linux_processors(Path("/"), os.sched_getaffinity(0))
    elif sys.platform == "win32":
        from .cores_windows import kernel32, windows_processors

        found = windows_processors(kernel32())
    elif sys.platform == "darwin":
        from .cores_macos import macos_processors, sysctl

        found = macos_processors(sysctl)
    return found or alike(os.cpu_count() or 1)


def alike(count: int) -> Processors:
    """So many processors of which nothing more is known."""
    return Processors(machine=count, allowed=count, cores=count, fast=count)
