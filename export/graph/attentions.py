"""Find the self-attentions of a master graph by the layers that they read."""

from collections.abc import Collection, Iterator

import onnx_ir as ir

from ..quantize.attention_places import PROJECTIONS
from .layers import Layer, find_layers


def self_attentions(graph: ir.Graph, names: Collection[str]) -> Iterator[tuple[str, ir.Node, list[Layer]]]:
    """Name, `Attention` node and the layers of queries, keys and values (`<name>.to_q` and so on) of each of these.

    The layers are as the master has them. `ValueError`, behind the last one, for a name that is not in the graph.
    """
    layers = {layer.output: layer for layer in find_layers(graph)}
    missing = set(names)
    for node in list(graph):
        if node.op_type != "Attention":
            continue
        read = [layers[value] for value in node.inputs[: len(PROJECTIONS)] if value in layers]
        name = read[0].name.removesuffix(f".{PROJECTIONS[0]}") if read else ""
        if name in missing and [layer.name for layer in read] == [f"{name}.{part}" for part in PROJECTIONS]:
            missing.remove(name)
            yield name, node, read
    if missing:
        raise ValueError(f"the graph has no attention {', '.join(sorted(missing))}")
