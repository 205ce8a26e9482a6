"""The `onnx-fp16` target: half precision in an ONNX file that ONNX Runtime's providers for GPUs take.

Older numbers of ONNX's operators, and no operator that one of the providers lacks or reads otherwise. What remains is
the same on every one of them, so that an engine is good for all; which of them runs it is chosen when it is loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ....engine.errors import IncompatibleError
from ...quantize.formats import FLOAT16, W4, W4_HALVES, W8, Format, Kind
from ...quantize.recipes import Instead
from ...target import LIBRARIES, AnySize, Lowered, quiet
from .files import save

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec, Role
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

# DirectML takes operators up to this opset; what is newer it leaves to the processor, node by node.
OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True, kw_only=True)
class OnnxHalfTarget(AnySize):
    """ONNX Runtime on a GPU, by whatever provider it has for it.

    The files run here too, on the processor. ONNX Runtime computes there in float32 what it has no kernel for in half
    precision, so what they are measured by are the graph and its rounded weights.
    """

    name: str = "onnx-fp16"
    runner: str = "ort"
    dtype: str = "float16"
    runs_here: bool = True
    reading: float = 1.0
    formats: Mapping[Kind, frozenset[Format]] = field(
        default_factory=lambda: {
            **{kind: frozenset({FLOAT16}) for kind in Kind},
            Kind.LINEAR: frozenset({FLOAT16, W8, W4_HALVES}),
            Kind.CONV: frozenset({FLOAT16, W8}),
        }
    )
    # Scales of groups along a weight are newer than `OPSET`; for a product there is an operator of ONNX Runtime's own.
    instead: Instead = field(default_factory=lambda: {Kind.LINEAR: {W4: W4_HALVES}, Kind.CONV: {W4: W8}})
    pace: Mapping[Format, float] = field(default_factory=dict)
    default_recipe: str = "fp16"
    libraries: tuple[str, ...] = LIBRARIES

    def of(self, role: "Role") -> Self:
        """Itself: it makes every component."""
        return self

    def lower(
        self,
        component: str,
        spec: "ComponentSpec",
        model: "ir.Model",
        weights: "WeightSource",
        quantization: "Quantization",
        out: Path,
        aside: Path,
        tell: Callable[[str], None] = quiet,
    ) -> Lowered:
        """See `Target.lower`; writes `model.onnx` and `model.onnx.data`, with open graphs beside.

        Memory: the graph and one layer at a time.
        """
        from ....engine.companion import is_companions
        from ...graph.activations import activation_model, dequantized_bytes
        from ...graph.master import attach
        from .openings import describe_openings, opened, save_opened, weighed

        # Before the passes: ONNX's shape inference does not know the nodes of ONNX Runtime's own that they put in.
        activation = activation_model(component, model, spec)
        openings = None if is_companions(component) else describe_openings(component, model, spec, {})
        attach(model, weights)
        open_models = {} if openings is None else opened(model, spec)
        for one in (model, *open_models.values()):
            rewrite(component, one, spec, quantization)
        save(model, out)
        sizes = save_opened(open_models, out)
        return Lowered(
            activation=replace(activation, dequantized_bytes=dequantized_bytes(model.graph)),
            openings=None if openings is None else weighed(openings, sizes),
        )


def rewrite(component: str, model: "ir.Model", spec: "ComponentSpec", quantization: "Quantization") -> None:
    """The passes, in their order: formats first, while layers still look as the master wrote them.

    Raises `IncompatibleError` for an operator that is newer than `OPSET`.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ....engine.specs import Role
    from ...graph.fold_transpose import fold_transpose
    from ...graph.layers import MICROSOFT, MICROSOFT_VERSION
    from .attention_causal import attention_causal
    from .attention_mha import attention_mha
    from .linear_groups import linear_groups
    from .weight_halves import weight_halves

    graph = model.graph
    graph.opset_imports[MICROSOFT] = MICROSOFT_VERSION
    for lower in (linear_groups, weight_halves):
        lower(graph, quantization)
    RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
    fold_transpose(graph)
    if spec.role is Role.TEXT_ENCODER:
        _, tokens, width = spec.outputs[0].shape
        assert isinstance(tokens, int)
        assert isinstance(width, int)
        attention_causal(graph, tokens=tokens, width=width, dtype=ir.DataType.FLOAT16)
    for inside in {node.graph for node in graph.all_nodes()}:  # an open graph's branches too
        if isinstance(inside, ir.Graph):
            attention_mha(inside)
    RemoveUnusedNodesPass()(model)
    _lower_opset(component, model)


def _lower_opset(component: str, model: "ir.Model") -> None:
    """Declare `OPSET`: what the master is written in means the same there; later numbers only took more types."""
    import onnx.defs

    for node in model.graph.all_nodes():
        if node.domain == "" and not onnx.defs.has(node.op_type, OPSET, ""):
            raise IncompatibleError(f"{component}: {node.name} is {node.op_type}, which opset {OPSET} does not have")
    model.graph.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION
