"""Time the GPU kernels beside their peers: `python -m benchmarks.kernels`; needs an NVIDIA GPU, torch and Triton.

Each call of SDXL's base at 1024², batch 2, is first compared with its float64 reference; a wrong one ends the run.
Times are medians of CUDA-graph replays over inputs that rotate, so that nothing waits in the L2 cache.

With `--roofline GPU` nothing is measured and no GPU is needed: whole forwards are predicted from stated peaks, tile by
tile, and with `all` the predictions for an H100 are held to what was measured on one. It takes what builds engines.
"""

import argparse
import os
import sys

from ..gpu_environment import gpu_environment
from ..report import finish
from .cases import cases
from .gpus import GPUS


def main() -> int:
    """Measure or predict; the JSON object is the last line. 1: an op is wrong. 2: there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the most frequent calls of each op only")
    parser.add_argument("--op", nargs="+", default=[], help="only these ops")
    parser.add_argument("--seconds", type=float, default=420, help="after so long no further case begins")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that compile kernels")
    parser.add_argument("--roofline", choices=[*GPUS, "all"], metavar="GPU", help=f"predict: {', '.join(GPUS)}, all")
    options = parser.parse_args()
    if options.roofline:
        return roofline(options.roofline)
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write("error: no GPU here; --roofline predicts without one\n")
        return 2
    from pocketxl.kernels.execute import architecture_of
    from pocketxl.kernels.timing import CudaGraphs

    from .check import WrongResultError
    from .run import run

    torch.backends.cudnn.benchmark = True
    arch = architecture_of(torch.empty(1, device="cuda"))
    found = cases(quick=options.quick, ops=options.op)
    try:
        records = run(found, arch, CudaGraphs(), seconds=options.seconds, jobs=options.jobs)
    except WrongResultError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finish("kernels", records, extra=gpu_environment())
    return 0


def roofline(wanted: str) -> int:
    """Predict for one GPU, or for all and hold what can be held to measurements; a line a whole forward for people."""
    from .held import held
    from .prediction import NOTES, errors, predict

    chosen = list(GPUS.values()) if wanted == "all" else [GPUS[wanted]]
    records = [record for gpu in chosen for record in predict(gpu)]
    parts = ("predicted_seconds", "relative_error")  # too many to read
    ratios = [record for record in records if record.metric not in parts]
    if wanted == "all":
        compared = list(errors(list(held())))
        records += compared
        ratios += [record for record in compared if record.metric not in parts]
    for record in ratios:
        sys.stderr.write(f"{record.case} {record.system} {record.metric}: {record.value:.3f}\n")
    finish("kernels", records, extra={"notes": list(NOTES)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
