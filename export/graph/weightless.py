"""A graph without its weights: what its values' sizes are told from, and what tells it from other graphs."""

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from ...engine.errors import IncompatibleError

if TYPE_CHECKING:
    import onnx_ir as ir

LATENT_PIXELS = 64
"""Pixels of a picture for one of its latents."""
# Constants up to this many numbers are given to shape inference, because some of them are shapes.
_SHAPE_NUMBERS = 64


class Weightless:
    """A model without weights, which are inputs of the same shape, and the bytes of its values at concrete sizes."""

    def __init__(self, component: str, model: "ir.Model") -> None:
        import onnx
        import onnx_ir as ir

        self._component = component
        self._made = [str(value.name) for node in model.graph for value in node.outputs]
        graph = onnx.GraphProto(name="shapes")
        self._shapes: list[tuple[int | str, ...]] = []
        for value in model.graph.inputs:
            assert value.shape is not None
            assert value.dtype is not None
            self._shapes.append(tuple(d if isinstance(d, int) else str(d.value) for d in value.shape))
            graph.input.append(onnx.helper.make_tensor_value_info(str(value.name), value.dtype.value, None))
        for name, value in model.graph.initializers.items():
            assert value.shape is not None
            assert value.dtype is not None
            dims = [int(d) for d in value.shape]
            if math.prod(dims) <= _SHAPE_NUMBERS and value.const_value is not None:
                graph.initializer.append(onnx.numpy_helper.from_array(value.const_value.numpy(), name))
            else:
                graph.input.append(onnx.helper.make_tensor_value_info(str(name), value.dtype.value, dims))
        graph.node.extend(ir.serde.serialize_node(node) for node in model.graph)
        for value in model.graph.outputs:
            assert value.dtype is not None
            graph.output.append(onnx.helper.make_tensor_value_info(str(value.name), value.dtype.value, None))
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
        self._proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
        self.digest = sha256(repr(self._shapes).encode() + self._proto.SerializeToString(deterministic=True)).digest()
        """Equal for two graphs that are alike but for their weights."""

    def bytes_at(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bytes of every value, by ONNX's shape inference. Raises `IncompatibleError` where it does not know one."""
        import onnx

        scale = math.isqrt(LATENT_PIXELS)
        sizes = {**{f"image_{side}": scale * sizes[side] for side in ("height", "width") if side in sizes}, **sizes}
        for value, shape in zip(self._proto.graph.input, self._shapes, strict=False):
            dims = [d if isinstance(d, int) else sizes[d] for d in shape]
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, dims))
        inferred = onnx.shape_inference.infer_shapes(self._proto, data_prop=True)
        found = {}
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            tensor = value.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
            if tensor.HasField("shape") and (all(dims) or not dims):
                itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
                found[value.name] = math.prod(dims) * itemsize
        if missing := [name for name in self._made if name not in found]:
            raise IncompatibleError(
                f"{self._component}: the shapes of {missing[:3]} cannot be inferred ({len(missing)} in all)"
            )
        return found
