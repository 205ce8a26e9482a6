"""The gate for what this machine cannot run: a stand-in in plain ONNX is held to the reference instead.

ONNX Runtime's CPU provider runs a half-precision graph partly in float32, between casts. So the figures are those of
the graph and its rounded weights; what the back end itself adds is only found on the device.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ...engine.folder.files import entry_of
from ...engine.folder.manifest import ActivationModel, ComponentEntry
from ...engine.runners.base import Loaded
from ...engine.runners.ort import OrtRunner
from ..components import Component
from ..quantize.recipes import Recipe
from .gate import Recorded, worst
from .parity import compare, gate
from .run import Reference


def check_stand_in(path: Path, component: Component, recipe: Recipe, reference: Reference) -> dict[str, Any]:
    """Figures of the ONNX file at `path`, alone in its folder with its data, against the component's samples.

    Raises `QualityError` that names the worst layers if it misses the recipe's threshold, `IncompatibleError` if ONNX
    Runtime cannot run it. Memory: the stand-in, with its weights in float32 where a kernel for half precision lacks.
    """
    samples = reference.samples[component.name]
    files = tuple(entry_of(path.parent, file.name) for file in sorted(path.parent.iterdir()))
    entry = ComponentEntry(
        spec=component.spec,
        runner="ort",
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={"1": 0.0}),
    )
    runner = OrtRunner(path.parent, component.name, entry)
    with Loaded(runner):
        found = compare(Recorded(samples), runner, [inputs for inputs, _ in samples])
    calibration = reference.calibration.get(component.name)
    gate(
        component.name, component.spec.role, recipe, found, partial(worst, component, recipe, calibration, samples[:1])
    )
    return found.to_json()
