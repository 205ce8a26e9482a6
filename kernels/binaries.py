"""A folder of compiled kernels: one cubin per variant, and a manifest that says how to launch each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from .architecture import Architecture
from .compile import FP_FUSION, Binary, CompileError, compile_variant, faults
from .launch import Variant

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one variant: its binary, or why there is none, and what is wrong with it."""

    variant: Variant
    binary: Binary | None
    faults: tuple[str, ...]


def compile_all(
    variants: Iterable[Variant], arch: Architecture, *, jobs: int = 1, report: Callable[[Result], None] | None = None
) -> list[Result]:
    """Compile variants for one architecture, in `jobs` processes; results in the order of the variants."""
    wanted = list(dict.fromkeys(variants))
    if jobs == 1:
        return [_reported(_compile(variant, arch), report) for variant in wanted]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        with _deaf_to_interrupts():
            results = pool.map(_compile, wanted, [arch] * len(wanted))
        return [_reported(result, report) for result in results]


def write_folder(results: Iterable[Result], arch: Architecture, folder: Path) -> Path:
    """Write `folder/sm_<n>` anew: every binary and the manifest; it is renamed into place when complete.

    Raises `CompileError`: a variant has a fault; nothing is written.
    """
    results = list(results)
    if bad := [result for result in results if result.faults]:
        lines = "; ".join(f"{result.variant.name}: {', '.join(result.faults)}" for result in bad)
        raise CompileError(f"{len(bad)} of {len(results)} kernels for sm_{arch.sm} may not ship: {lines}")
    final = folder / f"sm_{arch.sm}"
    part = folder / f".sm_{arch.sm}.{os.getpid()}"
    part.mkdir(parents=True)
    try:
        entries = {}
        for result in results:
            assert result.binary is not None
            file = f"{result.variant.name}.cubin"
            (part / file).write_bytes(result.binary.cubin)
            entries[result.variant.name] = _entry(result.binary, file)
        manifest = {
            "format": FORMAT,
            "sm": arch.sm,
            "triton": metadata.version("triton"),
            "fp_fusion": FP_FUSION,
            "binaries": entries,
        }
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        part.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def _entry(binary: Binary, file: str) -> dict[str, Any]:
    variant = binary.variant
    return {
        "file": file,
        "sha256": hashlib.sha256(binary.cubin).hexdigest(),
        "kernel": variant.kernel,
        "entry": binary.entry,
        "arguments": [list(pair) for pair in variant.types],
        "divisible": list(variant.divisible),
        "constants": dict(variant.constants),
        "num_warps": variant.num_warps,
        "num_stages": variant.num_stages,
        "shared": binary.shared,
        "registers": binary.registers,
        "instruction": variant.instruction,
    }


def _compile(variant: Variant, arch: Architecture) -> Result:
    try:
        binary = compile_variant(variant, arch)
    except CompileError as error:
        return Result(variant=variant, binary=None, faults=(str(error),))
    return Result(variant=variant, binary=binary, faults=tuple(faults(binary)))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C for good: the one that waits for them ends them, with no traceback."""
    if threading.current_thread() is not threading.main_thread():  # only there can the handler be changed
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _reported(result: Result, report: Callable[[Result], None] | None) -> Result:
    if report:
        report(result)
    return result
