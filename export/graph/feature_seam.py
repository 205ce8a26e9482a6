"""What T2I adapters add to a U-Net: one input behind each stage of its way down, and one behind its middle.

Where diffusers adds `down_intrablock_additional_residuals`: to what goes on down and to the skip connection that is the
same value. Behind a stage with attention that is before the downsampler; behind another it is after it, where diffusers
adds in place, so that the skip connection has it there too.
"""

import re

import onnx_ir as ir

from ...engine.deep_features import FEATURE
from ...engine.specs import ComponentSpec, TensorSpec
from ...engine.t2i_adapter import FEATURES
from .opener import Opener

_MODULE = re.compile(
    r"(?P<stage>down_blocks\.\d+|mid_block)\.(?P<kind>resnets|attentions|downsamplers)\.(?P<number>\d+)"
)
_ROWS, _LENGTHS = 0, ("rows", "channels", "height", "width")


def feature_seam(opener: Opener, _: ComponentSpec) -> tuple[TensorSpec, ...]:
    """See `openings.Seam`. No row: nothing is added. One row is for all.

    Of a U-Net's outermost level alone (`shallow`) only what changes that level; the rest is in the feature that it
    takes.
    """
    found = []
    alone = any(value.name == FEATURE for value in opener.graph.inputs)
    for index, value in enumerate(_values(opener.graph, alone=alone)):
        name = f"{FEATURES}.{index}"
        spec = TensorSpec(name=name, shape=tuple(f"{name}.{length}" for length in _LENGTHS))
        opener.add(f"{name}/branch", value, [], given=opener.input(spec), axis=_ROWS)
        found.append(spec)
    return tuple(found)


def _values(graph: ir.Graph, *, alone: bool) -> list[ir.Value]:
    """What features are added to, in running order."""
    made: dict[str, dict[str, ir.Value]] = {}
    for node in graph:
        path, _, operation = str(node.name).rpartition("/")
        found = _MODULE.match(path)
        if found is None or not operation:
            continue
        # Of a module's nodes the last one makes what it returns.
        if found[0] == path or found["kind"] == "downsamplers":
            made.setdefault(found["stage"], {})[found["kind"] if found["kind"] == "downsamplers" else found[0]] = (
                node.outputs[0]
            )
    places = (_of_stage(name, values, alone=alone) for name, values in made.items())
    return [place for place in places if place is not None]


def _of_stage(name: str, values: dict[str, ir.Value], *, alone: bool) -> ir.Value | None:
    attentive = any(module.startswith(f"{name}.attentions") for module in values)
    behind = values.pop("downsamplers", None)
    if behind is not None and not attentive:
        return behind
    if alone and not attentive:
        return None  # it would be added behind the downsampler, which was cut off
    return list(values.values())[-1]
