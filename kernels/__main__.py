"""`python -m pocketxl.kernels`: compile the GPU kernels ahead of time, without a GPU; or tune them on one."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .architecture import GPU_ARCHITECTURES, architecture
from .binaries import Result, compile_all, write_folder
from .errors import KernelError
from .sdxl import all_launch_plans
from .tune import add_arguments, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns 0 when done, 1 when kernels have faults, 2 for a wrong argument, 3 for an architecture without kernels, 5
    for storage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pocketxl.kernels",
        description=__doc__,
        epilog="example: python -m pocketxl.kernels compile --sm 86 89 -o kernels",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compiler = commands.add_parser(
        "compile", help="compile every kernel that SDXL needs; needs no GPU", description=_compile.__doc__
    )
    compiler.add_argument(
        "--sm", type=int, nargs="+", metavar="N", default=sorted(GPU_ARCHITECTURES),
        help="compute capabilities, 86 for 8.6; default: " + " ".join(map(str, sorted(GPU_ARCHITECTURES))),
    )  # fmt: skip
    compiler.add_argument("--op", nargs="+", metavar="OP", help="only these ops")
    compiler.add_argument("-o", "--output", type=Path, metavar="DIR", help="write sm_N/*.cubin and manifest.json here")
    compiler.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes; default: all cores")
    compiler.add_argument("--json", action="store_true", help="one JSON object per kernel on standard output")
    compiler.set_defaults(run=_compile)
    tuner = commands.add_parser("tune", help="measure configurations on this machine's GPU and write a table")
    add_arguments(tuner)
    tuner.set_defaults(run=run)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except KernelError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: cannot write: {error}; name a folder that can be written\n")
        return 5
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing half-written was left\n")
        return 130


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: give 1 or more")
    return int(text)


def _compile(options: argparse.Namespace) -> int:
    """Compile every kernel that SDXL's base and refiner need and hold each to its architecture.

    That is: shared memory, no spilled register, the expected matrix instruction. With -o write the binaries, and a
    manifest that says how to launch each.
    """
    with _folder(options.output):
        return _compile_into(options)


def _compile_into(options: argparse.Namespace) -> int:
    for arch in [architecture(sm) for sm in options.sm]:  # all are checked before the first is compiled
        plans = all_launch_plans(arch)
        known = {plan.op for plan in plans}
        if unknown := set(options.op or ()) - known:
            raise KernelError(f"no op {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        plans = tuple(plan for plan in plans if not options.op or plan.op in options.op)
        variants = dict.fromkeys(variant for plan in plans for variant in plan.variants)

        def report(result: Result, sm: int = arch.sm) -> None:
            sys.stdout.write((_json if options.json else _line)(sm, result) + "\n")
            sys.stdout.flush()

        results = compile_all(variants, arch, jobs=options.jobs, report=report)
        bad = sum(bool(result.faults) for result in results)
        sys.stderr.write(f"sm_{arch.sm}: {len(results)} kernels, {bad} with faults\n")
        if bad:
            return 1
        if options.output:
            write_folder(results, arch, options.output)
    return 0


@contextmanager
def _folder(output: Path | None) -> Iterator[None]:
    """The output folder is made before minutes of work, and is gone again if nothing was put into it."""
    if output is None or output.is_dir():
        yield
        return
    output.mkdir(parents=True)
    try:
        yield
    finally:
        if not any(output.iterdir()):
            output.rmdir()


def _line(sm: int, result: Result) -> str:
    binary = result.binary
    cost = f"{binary.shared:>7} B shared {binary.registers:>4} registers" if binary else " " * 31
    return f"sm_{sm:<4}{result.variant.name:<48}{cost}  {'; '.join(result.faults) or 'ok'}"


def _json(sm: int, result: Result) -> str:
    binary = result.binary
    return json.dumps(
        {
            "sm": sm,
            "name": result.variant.name,
            "kernel": result.variant.kernel,
            "constants": dict(result.variant.constants),
            "instruction": result.variant.instruction,
            "shared": binary.shared if binary else None,
            "registers": binary.registers if binary else None,
            "faults": list(result.faults),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
