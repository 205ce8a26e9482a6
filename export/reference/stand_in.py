"""The gate for what this machine cannot run: a stand-in in plain ONNX is held to the reference instead.

ONNX Runtime's CPU provider runs a half-precision graph partly in float32, between casts. So the figures are those of
the graph and its rounded weights; what the back end itself adds is only found on the device.
"""

from collections.abc import Sequence
from pathlib import Path

from ...engine.folder.files import entry_of
from ...engine.folder.manifest import ActivationModel, ComponentEntry
from ...engine.runners.ort import OrtDevice, OrtRunner
from ..components import Component
from ..quantize.recipes import Recipe
from .gate import check_component
from .run import Reference


def check_stand_in(
    path: Path,
    component: Component,
    recipe: Recipe,
    others: Sequence[Recipe],
    reference: Reference,
    *,
    threads: int | None = None,
) -> dict[str, float]:
    """Figures of the ONNX file at `path`, alone in its folder with its data, against the component's samples.

    Raises `QualityError` that names the worst layers if it misses the recipe's threshold, `IncompatibleError` if ONNX
    Runtime cannot run it. Memory: the stand-in, with its weights in float32 where a kernel for half precision lacks.
    """
    files = tuple(entry_of(path.parent, file.name) for file in sorted(path.parent.iterdir()))
    entry = ComponentEntry(
        spec=component.spec,
        runner="ort",
        files=files,
        weight_bytes=sum(file.size for file in files),
        activation=ActivationModel(terms={}),
    )
    runner = OrtRunner(path.parent, component.name, entry, OrtDevice(threads=threads))
    return check_component(runner, component, recipe, others, reference)
