"""What smoothing has done to the layers that can take low-rank pairs: see `engine.adapters.factors`."""

from collections.abc import Collection, Mapping

from ...engine.adapters.factors import Factors
from ...engine.folder.openings import Shape
from .smoothing import Smoothing


def pair_factors(layers: Mapping[str, Shape], smoothing: Smoothing, parameters: Collection[str]) -> dict[str, Factors]:
    """Layer → its factors, for those that have any.

    `layers`: shapes of weights, where a layer of the checkpoint may stand by its parts; `parameters`: the checkpoint's
    names.
    """
    found = {}
    for name, shape in layers.items():
        rows = shape[0]
        if f"{name}.weight" in parameters:
            layer, start, width = name, 0, rows
        else:
            layer, _, part = name.rpartition(".")
            start = int(part) * rows
            width = sum(other[0] for n, other in layers.items() if n.rpartition(".")[0] == layer and n != layer)
        inputs, outputs = smoothing.columns.get(layer), smoothing.outputs(layer, width)
        if inputs is not None or outputs is not None:
            own = None if outputs is None else outputs[start : start + rows]
            found[name] = Factors(inputs=inputs, outputs=own)
    return found
