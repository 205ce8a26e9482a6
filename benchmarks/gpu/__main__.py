"""Time whole U-Nets and the VAE on the GPU, ours beside diffusers and torch.compile: `python -m benchmarks.gpu`.

All have the same random weights and inputs, and errors are told against float32. Needs an NVIDIA GPU, torch, Triton and
diffusers. With `--out` the file holds all that is measured so far at any time.

With `--tiny` narrow networks run on the processor instead, in seconds; their times say nothing.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ..gpu_environment import gpu_environment
from ..journal import Journal
from ..report import finish
from .cases import CASES, cases

SLOW = ("torch-compile-fp16-fused", "torch-compile-max-fp16-short-sums", "pocketxl-int4", "pocketxl-int4-weight")
COMPILED_APART = ("pocketxl-rtx", "tensorrt")
"""Systems that are not measured unless they are named, these by how their names begin: minutes go by before their first
call."""


def main(benchmark: str = "gpu", systems: Sequence[str] = (), seconds: float = 540) -> int:
    """Measure; the JSON object is the last line, also of a run that is told to end. 2: there is no GPU.

    `systems` are measured if the command line names none: None of them is all that take seconds to begin. After
    `seconds` no further case begins.
    """
    import torch

    from ..table import table
    from .ours import ours
    from .peers import PEERS
    from .run import run

    names = [system.name for system in (*PEERS, *ours())]
    usual = systems or [name for name in names if name not in SLOW and not name.startswith(COMPILED_APART)]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=__doc__)
    parser.add_argument("--cases", nargs="+", default=[], choices=[c.name for c in CASES], help="only these")
    parser.add_argument("--systems", nargs="+", default=usual, choices=names, help="these, in this order")
    parser.add_argument("--seconds", type=float, default=seconds, help="after so long no further case begins")
    parser.add_argument("--out", type=Path, help="file that holds the records at any time")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps float32's results and our built components for the next run"
    )
    parser.add_argument("--tiny", action="store_true", help="narrow networks on the processor")
    options = parser.parse_args()
    device = "cpu" if options.tiny else "cuda"
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write("error: no GPU here; --tiny runs narrow networks on the processor\n")
        return 2
    signal.signal(signal.SIGTERM, _end)
    known = {system.name: system for system in (*PEERS, *ours(options.work))}
    journal = Journal(benchmark, options.out, {} if options.tiny else gpu_environment())
    try:
        run(
            cases(options.cases, tiny=options.tiny),
            [known[name] for name in options.systems],
            journal,
            device=device,
            tiny=options.tiny,
            seconds=options.seconds,
            kept=None if options.work is None else options.work / ("tiny" if options.tiny else "float32"),
        )
    finally:
        sys.stderr.write(table(journal.records))
        finish(benchmark, journal.records, extra=journal.extra)
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    """What is measured is still to be printed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
