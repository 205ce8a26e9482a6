"""The reference run of an upscaler: its network on drawn pictures. It is not quantized, so nothing is watched."""

import numpy as np

from ...engine.folder.samples import Sample
from ...engine.progress import Progress, track
from ...engine.upscaler import UPSCALER, UpscalerArchitecture
from ...engine.upscaling.enlarge import unshuffled
from ..components import Assembly
from ..quantize.calibration import Calibration
from .run import Reference
from .steered import HINTS

_SIDES = (40, 56)
"""Of the tiles, in pixels that the network reads."""


def run_enlarged(assembly: Assembly, architecture: UpscalerArchitecture, progress: Progress) -> Reference:
    """Run it in float32. Memory: activations and one layer."""
    from .streamed import StreamedModule

    component, block = assembly.components[UPSCALER], architecture.unshuffle
    module = StreamedModule(component.module, component.spec, component.weights)
    samples: list[Sample] = []
    with track(progress, "reference", total=len(HINTS), unit="step") as advance:
        for draw in HINTS:
            inputs = {"tile": unshuffled(draw(*(side * block for side in _SIDES)), block)}
            samples.append((inputs, module(inputs)))
            advance()
    return Reference(
        pictures=np.empty((0, 1, 1, 3), np.float32),
        samples={UPSCALER: samples},
        calibration={UPSCALER: Calibration()},
    )
