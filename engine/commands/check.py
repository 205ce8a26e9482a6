"""`pocketxl check`: what this machine makes of an engine, against the samples that it carries."""

import argparse
from dataclasses import asdict

from ..check import ComponentCheck, check_engine
from ..errors import QualityError
from ..memory.sizes import format_bytes
from .base import Command, emit, say
from .options import add_provider


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--threads", type=int, help="threads inside one operator (default: as `doctor` says)")
    add_provider(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    missed, first = [], ""
    for index, found in enumerate(check_engine(args.engine, threads=args.threads, provider=args.provider)):
        if args.json:
            emit("checked", **asdict(found), passed=found.passed)
        else:
            if index == 0:
                first = found.device
                whose = "" if found.device_bytes is None else "; memory is the GPU's"
                say(f"on {found.device or 'this machine'}{whose}")
                say(f"{'component':<22}{'error':>9}{'built':>9}{'limit':>9}{'call':>11}{'load':>9}{'memory':>11}")
            say(line(found, first))
        if not found.passed:
            missed.append(f"{found.name} {found.relative_error:.3g} (at most {found.limit:g})")
    if missed:
        raise QualityError(
            f"on this machine the engine is too far from the unquantized model: {', '.join(missed)}; build it here, or "
            "with another recipe"
        )
    return 0


def line(found: ComponentCheck, device: str) -> str:
    """One row of the table; says where the component ran if it is not on that device, which the heading names."""
    recorded = "-" if found.recorded is None else f"{found.recorded:.2g}"
    taken = found.peak_bytes if found.device_bytes is None else found.device_bytes
    memory = "-" if taken is None else format_bytes(taken)
    return (
        f"{found.name:<22}{found.relative_error:>9.2g}{recorded:>9}{found.limit:>9.2g}{1000 * found.seconds:>8.1f} ms"
        f"{found.load_seconds:>7.2f} s{memory:>11}{'' if found.passed else '  too far'}"
        f"{'' if found.device == device else f'  on {found.device}, and of its memory'}"
    )


command = Command(
    help="hold an engine to its reference samples on this machine: error, time and memory of each component",
    example="pocketxl check my-engine",
    configure=_configure,
    run=_run,
)
