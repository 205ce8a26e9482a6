"""From a torch module to its ONNX master: the graph first, without any weight in memory, then the weights lazily.

The master is back-end neutral: standard opset-23 operators in the forms that `operators.py` lists, parameters as
initializers under their state-dict names, inputs, outputs and symbolic dimensions exactly as the component's spec says.
"""

from collections.abc import Callable
from typing import Any, Protocol

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ...engine.errors import IncompatibleError
from ...engine.specs import ComponentSpec, TensorSpec
from .operators import RULES
from .tracing import ONNX_DTYPES, Tracer

_TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int64": torch.int64}
_IR_VERSION = 11


class WeightSource(Protocol):
    """What `attach` needs of `export.checkpoint.weights.Weights`."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that state-dict name, read now."""


def export_master(
    component: str,
    module_factory: Callable[[], nn.Module],
    spec: ComponentSpec,
    *,
    dtype: torch.dtype = torch.float32,
) -> ir.Model:
    """Trace the module that `module_factory` makes into an ONNX model whose parameters have no data yet.

    `module_factory` is called on the meta device, so the module may be of any size. The module's `forward` takes the
    spec's inputs by name; inputs with dotted names (`key_values.0.key`) arrive as one list under the first part of the
    name. Weights and arithmetic are `dtype` (float32 or float16); inputs and outputs have the spec's own dtypes, and a
    cast stands between where they differ. Raises `IncompatibleError` for a module that cannot be translated.
    """
    with torch.device("meta"):
        module = module_factory().to(dtype).eval()
    tracer = Tracer(module, RULES)
    # A T2I adapter cuts pictures into squares of 16 pixels.
    sizes = {symbol: 16 * (1 + i) for i, symbol in enumerate(spec.symbols())}
    arguments: dict[str, Any] = {}
    for tensor in spec.inputs:
        value = _edge(tensor)
        tracer.graph.inputs.append(value)
        shape = [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
        traced = tracer.typed(value, torch.empty(shape, dtype=_TORCH_DTYPES[tensor.dtype], device="meta"))
        group, dot, _ = tensor.name.partition(".")
        if dot:
            arguments.setdefault(group, []).append(traced)
        else:
            arguments[group] = traced
    with torch.no_grad():
        results = module(**arguments)
    results = results if isinstance(results, tuple) else (results,)
    for tensor, result in zip(spec.outputs, results, strict=True):
        edge, value = _edge(tensor), result.value
        if value.dtype != edge.dtype:
            value = tracer.node("Cast", [value], to=edge.dtype)
        value.name, value.shape, value.type = edge.name, edge.shape, edge.type
        tracer.graph.outputs.append(value)
    unused = sorted(set(tracer.parameter_names.values()) - set(tracer.graph.initializers))
    if unused:
        raise IncompatibleError(f"{component}: the forward pass does not use the parameters {unused[:5]}")
    return ir.Model(tracer.graph, ir_version=_IR_VERSION, producer_name="pocketxl")


def attach(model: ir.Model, weights: WeightSource) -> ir.Model:
    """Give every parameter of `model` (in place) a tensor that is read from `weights` when it is asked for.

    Nothing is read here and nothing is kept: each access reads the tensor again and casts it to the initializer's
    dtype, so saving with external data needs one tensor at a time. Constants and already attached parameters that a
    pass has made stay as they are.
    """
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.LazyTensor(
                lambda name=name, value=value: _read(weights, name, value),
                dtype=value.dtype,
                shape=value.shape,
                name=name,
            )
    return model


def _read(weights: WeightSource, name: str, value: ir.Value) -> ir.Tensor:
    """One weight in the initializer's dtype; raises `IncompatibleError` if its shape is another."""
    tensor = weights.tensor(name)
    if tuple(tensor.shape) != tuple(value.shape):
        raise IncompatibleError(f"weight {name} has shape {tuple(tensor.shape)}, the model needs {tuple(value.shape)}")
    dtype = next(torch_dtype for torch_dtype, onnx_dtype in ONNX_DTYPES.items() if onnx_dtype == value.dtype)
    return ir.Tensor(tensor.to(dtype).contiguous().numpy(), name=name)


def _edge(tensor: TensorSpec) -> ir.Value:
    """A graph input or output as declared."""
    type_ = ir.TensorType(ONNX_DTYPES[_TORCH_DTYPES[tensor.dtype]])
    return ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape), type=type_)
