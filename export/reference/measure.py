"""Figures of a component's ONNX file, on this machine, against the samples of the reference.

Where the target's own files cannot run here, the file is their stand-in. ONNX Runtime's CPU provider runs a
half-precision graph partly in float32, between casts. So the figures are then those of the graph and its rounded
weights; what the back end itself adds is only found on the device.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...engine.folder.files import entry_of
from ...engine.folder.manifest import ActivationModel, ComponentEntry
from ...engine.folder.samples import Sample
from ...engine.runners.base import Loaded, call
from ...engine.runners.ort import OrtDevice, OrtRunner
from ...engine.runners.ort_bands import BandsRunner
from ...engine.specs import Arrays
from ..components import Component
from ..target import Lowered
from .parity import Figures, compare


def figures_of(
    folder: Path, component: Component, made: Lowered, samples: Sequence[Sample], *, threads: int | None = None
) -> Figures:
    """Figures of the model in `folder`, alone there with its data.

    Raises `IncompatibleError` if ONNX Runtime cannot run it. Memory: the model, with its weights in float32 where a
    kernel for half precision lacks.
    """
    files = tuple(entry_of(folder, file.name) for file in sorted(folder.iterdir()))
    entry = ComponentEntry(
        spec=component.spec,
        runner=made.runner,
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}),
        exact_threads=made.exact_threads,
    )
    runs = BandsRunner if made.runner == "ort_bands" else OrtRunner
    runner = runs(folder, component.name, entry, OrtDevice(threads=threads))
    with Loaded(runner):
        return compare(_Recorded(samples), partial(call, runner), [inputs for inputs, _ in samples])


class _Recorded:
    """The reference's own outputs, played back in order: running it again would cost minutes and give the same."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._outputs = iter([outputs for _, outputs in samples])

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs of the next sample."""
        return dict(next(self._outputs))
