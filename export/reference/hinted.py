"""The reference run of a T2I adapter: its encoder on drawn hints, for it has nothing in the loop."""

from contextlib import ExitStack

import numpy as np

from ...engine.companion import Companion
from ...engine.control.t2i_adapter import adapter_pixels
from ...engine.progress import Progress, track
from ...engine.runners.base import call
from ..components import Assembly
from ..quantize.calibration import Calibration
from .calibrate import ROWS, watch
from .run import Reference, ReferenceRunner
from .steered import HINTS
from .streamed import StreamedModule

_SIZES = ((256, 256), (192, 320))
"""Height and width of the drawn hints, one of each for each way of drawing."""


def run_hinted(assembly: Assembly, companion: Companion, progress: Progress) -> Reference:
    """Run the encoder in float32 and watch every layer. Memory: activations and one layer."""
    adapter = companion.t2i_adapter
    assert adapter is not None
    ((name, component),) = assembly.components.items()
    hints = [draw(*size) for draw in HINTS for size in _SIZES]
    with ExitStack() as stack:
        module = StreamedModule(component.module, component.spec, component.weights)
        seen = stack.enter_context(watch(module, -(-ROWS // len(hints))))
        runner = ReferenceRunner(name=name, spec=component.spec, module=module, expected_rows=len(hints), watch=seen)
        shown = []
        with track(progress, "reference", total=len(hints), unit="step") as advance:
            for hint in hints:
                call(runner, {"image": adapter_pixels(hint, adapter.hint_channels)})
                shown.append(runner.take())
                advance()
    return Reference(
        pictures=np.empty((0, 1, 1, 3), np.float32),
        samples={name: runner.samples},
        calibration={name: Calibration.of_runs(shown)},
    )
