"""The working memory of an engine, from its own program."""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import numpy as np

from ....engine.compiled.arena import arena_at
from ....engine.compiled.read import read_compiled
from ....engine.folder.manifest import ActivationModel
from ....engine.specs import ComponentSpec, TensorSpec
from ...graph.activations import fit
from .profiles import LARGEST, LATENT, SINGLE, sampled_sides

Shape = tuple[int, ...]
_SAMPLES = {"batch": (1, 2), "tokens": (77, 308), "steps": (1, 50, 1000)}


def working_memory(engine: Path, spec: ComponentSpec, largest: int = LARGEST) -> ActivationModel | None:
    """The program's arena and the outputs, fitted over the sizes of a call; None if the program cannot be read."""
    compiled = read_compiled(engine)
    if compiled is None:
        return None

    return fitted_memory(spec, lambda shapes: arena_at(compiled, shapes), largest)


def fitted_memory(
    spec: ComponentSpec, arena: Callable[[Mapping[str, Shape]], int | None], largest: int
) -> ActivationModel | None:
    """The outputs and what `arena` tells for inputs of some shapes, fitted over the sizes of a call."""

    def measure(sizes: Mapping[str, int]) -> int | None:
        found = arena({tensor.name: _shape(tensor, sizes) for tensor in spec.inputs})
        outputs = sum(prod(_shape(t, sizes)) * np.dtype(t.dtype).itemsize for t in spec.outputs)
        return None if found is None else found + outputs

    single = {"batch": (1,)} if spec.role in SINGLE else {}
    return fit(spec, measure, samples={**_SAMPLES, **single, "side": sampled_sides(largest)}, squares=False)


def _shape(tensor: TensorSpec, sizes: Mapping[str, int]) -> Shape:
    pixels = {f"image_{side}": LATENT * sizes[side] for side in ("height", "width") if side in sizes}
    known = {**sizes, **pixels}
    return tuple(dim if isinstance(dim, int) else known[dim] for dim in tensor.shape)
