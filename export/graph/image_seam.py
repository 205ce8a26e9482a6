"""What IP-Adapters add to a U-Net: keys and values of a picture for every cross-attention.

A second attention of the same queries, whose result is added to that of the prompt, as diffusers does it; how much is
in the values already.
"""

from collections.abc import Iterator

import onnx_ir as ir

from ...engine.image_prompt import IMAGE_KEY_VALUES, IMAGE_TOKENS
from ...engine.specs import ComponentSpec, TensorSpec
from .opener import Opener

_KEY = 1
"""Which of an attention's inputs its keys are."""


def image_seam(opener: Opener, spec: ComponentSpec) -> tuple[TensorSpec, ...]:
    """See `openings.Seam`. No tokens: nothing is added."""
    found = []
    for tensor in spec.inputs:
        group, _, rest = tensor.name.partition(".")
        if group != "key_values" or not rest.endswith(".key"):
            continue
        number = rest.removesuffix(".key")
        attention = next(_attentions(next(v for v in opener.graph.inputs if v.name == tensor.name)))
        key, value = (
            TensorSpec(name=f"{IMAGE_KEY_VALUES}.{number}.{part}", shape=("batch", IMAGE_TOKENS, tensor.shape[-1]))
            for part in ("key", "value")
        )
        keys, values = opener.input(key), opener.input(value)
        branch = ir.node("Attention", [attention.inputs[0], keys, values], attributes=dict(attention.attributes))
        opener.add(f"{IMAGE_KEY_VALUES}.{number}/branch", attention.outputs[0], [branch], given=keys, axis=1)
        found += [key, value]
    return tuple(found)


def _attentions(value: ir.Value) -> Iterator[ir.Node]:
    """The attentions whose keys a value is, also behind a cast."""
    for node, index in value.uses():
        if node.op_type == "Cast":
            yield from _attentions(node.outputs[0])
        elif node.op_type == "Attention" and index == _KEY:
            yield node
