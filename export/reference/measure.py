"""Figures of a component's files, on this machine, against the samples of the reference.

Where the target's own files cannot run here, they are their stand-in's. ONNX Runtime's CPU provider runs a
half-precision graph partly in float32, between casts. So the figures are then those of the graph and its rounded
weights; what the back end itself adds is only found on the device.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from ...engine.folder.files import entry_of
from ...engine.folder.manifest import ActivationModel, ComponentEntry
from ...engine.folder.samples import Sample
from ...engine.runners import back_end
from ...engine.runners.base import Loaded, call
from ...engine.specs import Arrays
from ..components import Component
from ..target import Lowered
from .in_segments import run_in_segments
from .parity import Figures, compare


def figures_of(
    folder: Path,
    component: Component,
    made: Lowered,
    samples: Sequence[Sample],
    *,
    kind: str = "ort",
    threads: int | None = None,
) -> Figures:
    """Figures of the model in `folder`, alone there with its data; `kind` of runner.

    Raises `IncompatibleError` if the runner cannot run it. A stand-in has the weights of one segment in memory at a
    time (see `in_segments`); other files are what the machine runs anyway, and are run as a whole.
    """
    if made.stand_in is not None:
        answers = run_in_segments(folder, component.name, [inputs for inputs, _ in samples], threads=threads)
        return compare(
            _Recorded([outputs for _, outputs in samples]), _Recorded(answers), [inputs for inputs, _ in samples]
        )
    files = tuple(entry_of(folder, file.name) for file in sorted(folder.iterdir()))
    entry = ComponentEntry(
        spec=component.spec,
        runner=kind,
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}),
        exact_threads=made.exact_threads,
    )
    make_device, make_runner = back_end(kind)
    runner = make_runner(folder, component.name, entry, make_device(threads=threads))
    with closing(runner.device), Loaded(runner):
        return compare(
            _Recorded([outputs for _, outputs in samples]), partial(call, runner), [inputs for inputs, _ in samples]
        )


class _Recorded:
    """Outputs that are there already, played back in order: to run the reference again would cost minutes."""

    def __init__(self, outputs: Sequence[Arrays]) -> None:
        self._outputs = iter(outputs)

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs of the next sample."""
        return dict(next(self._outputs))
