"""Which kernels a program needs on an architecture, whatever the sizes, and their binaries."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ....engine.errors import IncompatibleError
from ....engine.program.program import Call

if TYPE_CHECKING:
    from ....kernels.binaries import Result
    from ....kernels.launch import Variant

COMPILED_FOR = (80, 86, 89, 90, 120)
"""Compute capabilities that binaries are made for; newer minors run those of the major before them."""

_TOLD = 3
"""Reasons in an error."""


def binaries(
    calls: Iterable[Call], architectures: Sequence[int], *, jobs: int, tell: Callable[[str], None]
) -> dict[int, list["Result"]]:
    """Compile every variant that the calls can ask for, by compute capability; needs no GPU.

    Widths that are not SDXL's may have kernels that are slower than they could be, since tiles were chosen for SDXL's.

    Raises `IncompatibleError` for a kernel that does not compile as it must, which is a fault of ours.
    """
    from ....kernels.architecture import architecture
    from ....kernels.binaries import compile_all

    calls = tuple(calls)
    found: dict[int, list[Result]] = {}
    for sm in architectures:
        wanted = variants(calls, sm)
        tell(f"compile {len(wanted)} kernels for sm_{sm}")
        results = compile_all(wanted, architecture(sm), jobs=jobs)
        bad = {result.variant.name: why for result in results if (why := _unusable(result)) is not None}
        if bad:
            reasons = {why: name for name, why in reversed(bad.items())}  # each once, with the first that has it
            told = "; ".join(f"{name}: {why}" for why, name in list(reversed(reasons.items()))[:_TOLD])
            raise IncompatibleError(f"{len(bad)} kernels for sm_{sm} may not be used: {told}")
        found[sm] = results
    return found


def variants(calls: Iterable[Call], sm: int) -> list["Variant"]:
    """What the calls can ask for on an architecture at any sizes, each once."""
    from ....kernels.architecture import architecture
    from ....kernels.closed import all_variants

    arch = architecture(sm)
    asked = {(call.op, tuple(sorted((k, str(v), v) for k, v in call.shape.items()))): call for call in calls}
    return list(dict.fromkeys(v for call in asked.values() for v in all_variants(call.op, call.shape, arch)))


def _unusable(result: "Result") -> str | None:
    from ....kernels.compile import unusable

    if result.binary is None:
        return ", ".join(result.faults)
    return ", ".join(unusable(result.binary)) or None
