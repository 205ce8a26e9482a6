"""Run a module's `forward` once on symbols and write down the ONNX node of every torch function it calls.

Our modules are shaped for this: they call few functions, never read a size, and have no branches on data. So one
table (`operators.py`) translates them, without tracing to torch's own IR and lowering that: the full SDXL U-Net takes
seconds instead of minutes, and the graph is exactly the one we mean. A function without a rule is an error, as is a
size that is read. Tensors carry a meta tensor of example size, which tells dtype and rank and catches shape errors.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ...engine.errors import IncompatibleError

OPSET = 23
ONNX_DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.bool: ir.DataType.BOOL,
}
Translation = Callable[..., Any]


class Traced(Tensor):
    """A value of the graph that behaves as a tensor: every torch function called on it is sent to its tracer."""

    value: ir.Value
    meta: Tensor
    tracer: "Tracer"

    @classmethod
    def of(cls, value: ir.Value, meta: Tensor, tracer: "Tracer") -> Self:
        """A tensor that stands for `value` and has the dtype and rank of `meta`."""
        device = torch.device("meta")
        traced: Self = cls._make_wrapper_subclass(cls, meta.shape, dtype=meta.dtype, device=device)
        traced.value, traced.meta, traced.tracer = value, meta, tracer
        return traced

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's override protocol: called in place of `func`."""
        everything = (*args, *(kwargs or {}).values())
        flat = (x for item in everything for x in (item if isinstance(item, (list, tuple)) else (item,)))
        tracer = next(x.tracer for x in flat if isinstance(x, Traced))
        return tracer.call(func, args, dict(kwargs or {}))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Traced({self.value.name})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Torch asks that this exists; nothing comes here, since `__torch_function__` answers first."""
        raise NotImplementedError(f"{func} was called on a traced value below torch's override protocol")


class Tracer:
    """Collects the nodes and parameters of one graph; the rules of `operators.py` call its methods."""

    def __init__(self, module: nn.Module, rules: Mapping[Any, Translation]) -> None:
        self.rules = rules
        self.graph = ir.Graph((), (), nodes=(), opset_imports={"": OPSET}, name="main")
        self.parameter_names = {id(p): name for name, p in module.named_parameters()}
        self.scope = [""]
        self.counts: Counter[str] = Counter()
        self.constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}
        for name, child in module.named_modules():
            child.register_forward_pre_hook(lambda _module, _args, name=name: self.scope.append(name))
            child.register_forward_hook(self._leave)

    def _leave(self, *_: Any) -> None:
        """A module's forward has ended."""
        self.scope.pop()

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Translate one torch function; results are `Traced`, or Python values for rules that answer with one."""
        rule = self.rules.get(func)
        if rule is None:
            raise self.refusal(f"{_name(func)}")
        try:
            inspect.signature(rule).bind(self, *args, **kwargs)
        except TypeError as error:
            raise self.refusal(f"{_name(func)} with other arguments than its rule knows") from error
        produced = rule(self, *args, **kwargs)
        if not isinstance(produced, ir.Value | tuple):
            return produced
        with torch._C.DisableTorchFunctionSubclass():
            meta = func(*(_meta(x) for x in args), **{k: _meta(x) for k, x in kwargs.items()})
        if isinstance(produced, ir.Value):
            return self.typed(produced, meta)
        return tuple(self.typed(value, m) for value, m in zip(produced, meta, strict=True))

    def refusal(self, what: str) -> IncompatibleError:
        """The error for something that a module calls and no rule translates."""
        return IncompatibleError(
            f"no ONNX rule for the torch function {what}, called in module '{self.scope[-1]}'; "
            "add one to export/graph/operators.py, or write the module without it"
        )

    def typed(self, value: ir.Value, meta: Tensor) -> Traced:
        """`value` as a tensor for the module; `meta` tells its dtype."""
        value.dtype = ONNX_DTYPES[meta.dtype]
        return Traced.of(value, meta, self)

    def node(self, op: str, inputs: Sequence[Any], outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; inputs are anything that `operand` takes. One value for one output, else a tuple."""
        path = f"{self.scope[-1]}/{op}".lstrip("/")
        self.counts[path] += 1
        name = path if self.counts[path] == 1 else f"{path}.{self.counts[path] - 1}"
        node = ir.node(op, [self.operand(x) for x in inputs], attributes, num_outputs=outputs, name=name)
        for i, output in enumerate(node.outputs):
            output.name = f"{name}:{i}"
        self.graph.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def operand(self, x: Any) -> ir.Value | None:
        """A graph value for a traced tensor, a parameter, a constant tensor or array, a graph value, or nothing."""
        if x is None or isinstance(x, ir.Value):
            return x
        if isinstance(x, Traced):
            return x.value
        if isinstance(x, nn.Parameter):
            return self.parameter(x, x.dtype)
        return self.constant(x.numpy() if isinstance(x, Tensor) else np.asarray(x))

    def parameter(self, parameter: Tensor, dtype: torch.dtype) -> ir.Value:
        """The initializer of a parameter, named as in the state dict, without data."""
        name = self.parameter_names[id(parameter)]
        if name not in self.graph.initializers:
            type_ = ir.TensorType(ONNX_DTYPES[dtype])
            self.graph.initializers.add(ir.Value(name=name, shape=ir.Shape(parameter.shape), type=type_))
        return self.graph.initializers[name]

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer that holds `array`; equal ones are stored once."""
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self.constants:
            value = ir.Value(
                name=f"constant.{len(self.constants)}",
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.tensor(array, name=f"constant.{len(self.constants)}"),
            )
            self.graph.register_initializer(value)
            self.constants[key] = value
        return self.constants[key]


def _name(func: Callable[..., Any]) -> str:
    """A torch function's name; for a tensor's attribute the attribute's."""
    owner = getattr(func, "__self__", None)
    return str(getattr(owner, "__name__", None) or getattr(func, "__name__", func))


def _meta(x: Any) -> Any:
    """`x` as the torch function should see it: tensors without data, in lists too."""
    if isinstance(x, Traced):
        return x.meta
    if isinstance(x, Tensor):
        return x.to("meta")
    return type(x)(_meta(item) for item in x) if isinstance(x, (list, tuple)) else x
