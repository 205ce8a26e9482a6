"""What ControlNets and T2I adapters add to a U-Net: one input for each skip connection, and one for its middle.

Where diffusers adds `down_block_additional_residuals` and `mid_block_additional_residual`: to what the way up reads,
not to what goes on down.
"""

import onnx_ir as ir

from ...engine.companion import RESIDUALS
from ...engine.specs import ComponentSpec, TensorSpec
from .opener import Opener

_CHANNELS = 1


def residual_seam(opener: Opener, _: ComponentSpec) -> tuple[TensorSpec, ...]:
    """See `openings.Seam`. A row of none: nothing is added. Lengths are the skip connection's own, or 1."""
    joins = [node for node in opener.graph if _joins(node)]
    places = [(join, 1) for join in reversed(joins)]
    # The way up begins at the last skip connection, where it reads the middle too. A graph whose way up begins higher
    # (`shallow.cut`) has none.
    first = joins[0].inputs[0]
    if first is not None and first.producer() is not None:
        places.append((joins[0], 0))
    specs = []
    for index, (join, side) in enumerate(places):
        name = f"{RESIDUALS}.{index}"
        shape = (RESIDUALS, *(f"{name}.{length}" for length in ("channels", "height", "width")))
        specs.append(TensorSpec(name=name, shape=shape))
        value, given = join.inputs[side], opener.input(specs[-1])
        assert value is not None
        opener.add(f"{name}/branch", value, [], given=given, axis=0, at=(join, side))
    return tuple(specs)


def _joins(node: ir.Node) -> bool:
    """Whether it joins the way up with a skip connection: the only thing that a U-Net does outside its modules."""
    at_root = "/" not in str(node.name)
    return node.op_type == "Concat" and at_root and node.attributes.get_int("axis") == _CHANNELS
