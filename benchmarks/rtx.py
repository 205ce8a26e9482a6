"""TensorRT for RTX engines on a GeForce card, beside TensorRT, torch.compile and diffusers: `python -m benchmarks.rtx`.

**Never run**: no card was there yet; what does not need one is tested. It is `benchmarks.gpu` with other systems: the
same networks, random weights, inputs, cases, errors against float32, and options. Of each system are told the error,
seconds, and the peak of the GPU's memory; one that cannot run says why, and the others go on. Engines are built first,
on the processor, for the card at hand; `--work FOLDER` keeps them for the next run. TensorRT is measured where its
package is.
"""

import sys
from math import inf

from .gpu.__main__ import main

SYSTEMS = (
    "pocketxl-rtx-fp16",
    "pocketxl-rtx-int8",
    "pocketxl-rtx-int8-weight",
    "pocketxl-rtx-int4-weight",
    "tensorrt-fp16",
    "torch-compile-fp16",
    "diffusers-fp16",
)


if __name__ == "__main__":
    sys.exit(main("rtx", SYSTEMS, inf))
