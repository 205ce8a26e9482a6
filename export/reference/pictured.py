"""The reference run of an IP-Adapter: its image encoder and its projection on drawn pictures, and on none."""

from contextlib import ExitStack

import numpy as np

from ...engine.companion import Companion
from ...engine.control.image_prompt import features_of
from ...engine.hints.clip import clip_pixels
from ...engine.progress import Progress, track
from ...engine.request.image_prompt import ImagePrompt
from ...engine.runners.base import call
from ..components import Assembly, Component
from ..quantize.calibration import Calibration
from .calibrate import ROWS, watch
from .run import Reference, ReferenceRunner
from .steered import HINTS

_SIZES = ((256, 256), (192, 320), (384, 256))
"""Height and width of the drawn pictures, one of each for each way of drawing."""


def run_pictured(assembly: Assembly, companion: Companion, progress: Progress) -> Reference:
    """Run both components in float32 and watch every layer. Memory: activations and one layer."""
    adapter = companion.ip_adapter
    assert adapter is not None
    pictures = [draw(*size) for draw in HINTS for size in _SIZES]
    pictures += [255 - picture for picture in pictures]
    with ExitStack() as stack:
        runners = {name: _runner(component, len(pictures), stack) for name, component in assembly.components.items()}
        encoder, projection = runners["image_prompt/encoder"], runners["image_prompt/projection"]
        shown: dict[str, list[Calibration]] = {name: [] for name in runners}
        with track(progress, "reference", total=len(pictures), unit="step") as advance:
            for picture in pictures:
                pixels = clip_pixels("picture", picture, adapter.vision.image_size)[None]
                for features in features_of(encoder, ImagePrompt(pixels=pixels, scale=1.0), plus=adapter.plus):
                    call(projection, {"features": features})
                for name, runner in runners.items():
                    shown[name].append(runner.take())
                advance()
    return Reference(
        pictures=np.empty((0, 1, 1, 3), np.float32),
        samples={name: runner.samples for name, runner in runners.items()},
        calibration={name: Calibration.of_runs(found) for name, found in shown.items()},
    )


def _runner(component: Component, pictures: int, stack: ExitStack) -> ReferenceRunner:
    from .streamed import StreamedModule

    module = StreamedModule(component.module, component.spec, component.weights)
    return ReferenceRunner(
        name=component.name,
        spec=component.spec,
        module=module,
        expected_rows=2 * pictures,
        watch=stack.enter_context(watch(module, -(-ROWS // (2 * pictures)))),
    )
