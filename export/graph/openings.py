"""Which open graphs a component has, and how each is made of the master: see `engine.folder.openings`.

What adapters do is data: a `Seam` puts inputs and branches into a graph, a `Row` says which seams a graph has and the
layers of which groups take low-rank pairs in it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ...engine.folder.openings import Shape, pair_inputs
from ...engine.specs import ComponentSpec, Role, TensorSpec
from ..quantize.formats import Kind
from .feature_seam import feature_seam
from .image_seam import image_seam
from .layers import find_layers, only_user
from .opener import Opener
from .residual_seam import residual_seam
from .token_seam import take_vectors

ATTENTION, OTHERS = "attention", "others"
_ATTENTION = re.compile(r".*\.(attn[12]\.(to_[qkv]|to_out\.0)|self_attn\.(q_proj|k_proj|v_proj|out_proj))")

Seam = Callable[[Opener, ComponentSpec], tuple[TensorSpec, ...]]
"""Puts one kind of adapter into a graph, and says which inputs that are."""
SEAMS: Mapping[str, Seam] = {
    "residuals": residual_seam,
    "image": image_seam,
    "features": feature_seam,
    "vectors": take_vectors,
}
"""By the name that rows call them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One open graph."""

    file: str
    groups: tuple[str, ...]
    """Groups of layers that take pairs."""
    seams: tuple[str, ...] = ()
    """Names in `SEAMS`."""


ROWS: Mapping[Role, tuple[Row, ...]] = {
    # Most LoRAs change attention alone or every linear layer; where convolutions have no pair, what that costs is small
    # beside them, but a feed-forward without one loses a tenth of its time.
    Role.UNET: (
        Row(file="open-control.onnx", groups=(), seams=("residuals",)),
        Row(file="open-image.onnx", groups=(), seams=("residuals", "image")),
        Row(file="open-features.onnx", groups=(), seams=("features", "residuals", "image")),
        Row(file="open-attention.onnx", groups=(ATTENTION,)),
        Row(file="open.onnx", groups=(ATTENTION, OTHERS), seams=("features", "residuals", "image")),
    ),
    Role.CONDITIONER: (Row(file="open.onnx", groups=(ATTENTION, OTHERS)),),
    Role.TEXT_ENCODER: (Row(file="open.onnx", groups=(ATTENTION, OTHERS), seams=("vectors",)),),
}
"""From the graph with the fewest places on."""


@dataclass(frozen=True, kw_only=True)
class CachedRow:
    """Two graphs that go together: the whole, which gives its deep feature, and the outermost level, which takes it."""

    whole: Row
    shallow: Row


CACHED: Mapping[Role, tuple[CachedRow, ...]] = {
    Role.UNET: tuple(
        CachedRow(
            whole=Row(file=f"cached{ending}.onnx", groups=groups, seams=seams),
            shallow=Row(file=f"shallow{ending}.onnx", groups=groups, seams=seams),
        )
        for ending, groups, seams in (("", (), ()), ("-open", (ATTENTION, OTHERS), ("features", "residuals", "image")))
    )
}
"""Likewise."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """A layer that can take a pair, or a part of one: what it writes, and the shape of its weight."""

    name: str
    shape: Shape
    output: ir.Value
    node: ir.Node
    """The one that multiplies. What it reads is asked of it when the place is opened: a layer before it may be open."""

    @property
    def group(self) -> str:
        """The group that it belongs to."""
        return group_of(self.name)


def group_of(layer: str) -> str:
    """The group of a layer."""
    return ATTENTION if _ATTENTION.fullmatch(layer) else OTHERS


def places(graph: ir.Graph) -> list[Place]:
    """Every linear layer and convolution of a master, in running order."""
    return list(_places(graph))


def groups_of(graph: ir.Graph) -> dict[str, dict[str, Shape]]:
    """Group → layer → shape of its weight: what `Openings.layers` has."""
    found: dict[str, dict[str, Shape]] = {ATTENTION: {}, OTHERS: {}}
    for place in places(graph):
        found[place.group][place.name] = place.shape
    return found


def open_graph(graph: ir.Graph, spec: ComponentSpec, row: Row, *, guarded: bool = True) -> tuple[TensorSpec, ...]:
    """Open a master (in place), before a target's passes; what it takes besides pairs."""
    opener = Opener(graph, guarded=guarded)
    for place in places(graph):
        if place.group in row.groups:
            _open(opener, place)
    return tuple(tensor for name in row.seams for tensor in SEAMS[name](opener, spec))


def _places(graph: ir.Graph) -> Iterator[Place]:
    for layer in find_layers(graph):
        if layer.kind is Kind.EMBEDDING or layer.main.attributes.get_int("group", 1) != 1:
            continue
        assert layer.weight.shape is not None
        shape = tuple(int(side) for side in layer.weight.shape)
        split = only_user(layer.output) if layer.kind is Kind.LINEAR else None
        if split is None or split.op_type != "Split":
            yield Place(name=layer.name, shape=shape, output=layer.output, node=layer.main)
            continue
        # Passes make two layers of it (`split_linear`), so its halves take pairs of their own.
        parts = len(split.outputs)
        for index, output in enumerate(split.outputs):
            part = (shape[0] // parts, *shape[1:])
            yield Place(name=f"{layer.name}.{index}", shape=part, output=output, node=layer.main)


def _open(opener: Opener, place: Place) -> None:
    """`output + (input · down) · up`; a convolution's `down` has its kernel, stride and padding, its `up` is 1 x 1."""
    down, up = (opener.input(spec) for spec in pair_inputs(place.name, place.shape))
    taken = place.node.inputs[0]
    if len(place.shape) == 2:
        inner = ir.node("MatMul", [taken, down])
        outer = ir.node("MatMul", [inner.outputs[0], up])
        axis = 1
    else:
        inner = ir.node("Conv", [taken, down], attributes=dict(place.node.attributes))
        outer = ir.node("Conv", [inner.outputs[0], up], attributes={"kernel_shape": [1 for _ in place.shape[2:]]})
        axis = 0
    opener.add(f"lora/{place.name}", place.output, [inner, outer], given=down, axis=axis)
