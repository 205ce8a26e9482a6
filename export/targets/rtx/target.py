"""The `rtx` targets: TensorRT for RTX engines, built on any machine, for all GPU generations or for one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ....engine.errors import StorageError
from ....engine.runners.ort import MODEL_FILE
from ....engine.runners.tensorrt import ENGINE_FILE
from ...quantize.formats import (
    FLOAT16,
    W4,
    W4_HALVES,
    W8,
    W8A8_DYNAMIC,
    W8A8_SIGNED,
    W8A8_SIGNED_CHANNEL,
    W8A8_STATIC,
    Format,
    Kind,
)
from ...quantize.recipes import Instead, Rule
from ...target import LIBRARIES, Lowered, quiet
from .profiles import profiles

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec, Role
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

# GPU generations that TensorRT for RTX builds for (by its own list there is no SM90, so Hopper is not among them).
ARCHITECTURES = {
    "sm75": "Turing",
    "sm80": "A100",
    "sm86": "Ampere",
    "sm89": "Ada",
    "sm120": "Blackwell",
    "sm121": "GB10",
}
TOGETHER = tuple(name for name in ARCHITECTURES if name != "sm75")
"""Those that share an engine, whose program is the same as for each of them alone. With Turing among them many biases
and residuals would be added behind the matrix products instead of in them, and each result read and written again."""

_SIGNED = (W8A8_SIGNED, W8A8_SIGNED_CHANNEL)
FORMATS: Mapping[Kind, frozenset[Format]] = {
    Kind.LINEAR: frozenset({FLOAT16, W4_HALVES, W8, *_SIGNED}),
    Kind.CONV: frozenset({FLOAT16, W4_HALVES, W8, *_SIGNED}),
    Kind.EMBEDDING: frozenset({FLOAT16}),
}
INSTEAD: Instead = {
    Kind.LINEAR: {W4: W4_HALVES, W8A8_DYNAMIC: _SIGNED},
    Kind.CONV: {W4: W4_HALVES, W8A8_STATIC: _SIGNED},
}
# Turing multiplies matrices in int8; its convolutions would become halves with rounded inputs. It has no 4 bits.
TURING_FORMATS = {**FORMATS, Kind.LINEAR: frozenset({FLOAT16, W8, *_SIGNED}), Kind.CONV: frozenset({FLOAT16, W8})}
TURING_INSTEAD: Instead = {Kind.LINEAR: {W8A8_DYNAMIC: _SIGNED}, Kind.CONV: {W8A8_STATIC: W8}}
# By the units that multiply, of which 8-bit ones are twice as fast on every generation; scales for channels are a pass
# more over the input, and halves read more memory. Not measured.
PACE: Mapping[Format, float] = {
    W8A8_SIGNED: 1.0,
    W8A8_SIGNED_CHANNEL: 1.2,
    W4_HALVES: 2.0,
    W8: 2.0,
    FLOAT16: 2.2,
}

COMPILED_FILE = "compiled.onnx"
"""What the compiler reads, beside the stand-in, whose weights it has."""


@dataclass(frozen=True, kw_only=True)
class RtxTarget:
    """TensorRT for RTX on some GPU generations; an engine for several has one program, the least common one."""

    name: str
    architectures: tuple[str, ...]
    runner: str = "tensorrt"
    dtype: str = "float16"
    runs_here: bool = False
    reading: float = 0.3
    formats: Mapping[Kind, frozenset[Format]] = field(default_factory=lambda: FORMATS)
    instead: Instead = field(default_factory=lambda: INSTEAD)
    rules: "Mapping[str, Mapping[Role, tuple[Rule, ...]]]" = field(default_factory=dict)
    pace: Mapping[Format, float] = field(default_factory=lambda: PACE)
    default_recipe: str = "fp16"
    libraries: tuple[str, ...] = (*LIBRARIES, "tensorrt-rtx-cu12")

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
        """See `Target.lower`; writes `model.engine`. The stand-in has its weights, and the edge that the spec declares.

        The compiler reads a second ONNX file, which shares the first one's weights and has halves at its edge.
        The builder names temporaries in an order that changes from run to run, so engines built twice from the same
        inputs are of equal size but differ in some bytes.
        """
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        from ...graph.activations import activation_model
        from ...graph.master import attach
        from .builder import Order
        from .edges import half_edges
        from .int8 import int8
        from .memory import working_memory
        from .process import build_aside
        from .weight_groups import weight_groups
        from .weight_only import weight_only

        rewrite(model)
        attach(model, weights)
        for rewrite_layers in (int8, weight_groups, weight_only):
            rewrite_layers(model.graph, quantization)
        RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
        order = Order(
            component=component,
            onnx=aside / COMPILED_FILE,
            profiles=profiles(component, spec),
            architectures=self.architectures,
            engine=out / ENGINE_FILE,
        )
        try:
            ir.save(model, aside / MODEL_FILE, external_data=f"{MODEL_FILE}.data")
            halves = ir.load(aside / MODEL_FILE)
            half_edges(halves.graph)
            ir.save(halves, order.onnx)
        except OSError as error:
            raise StorageError(
                f"cannot write {error.filename or aside}: {error.strerror or error}; "
                "free some space or choose another folder"
            ) from error
        build_aside(order, tell)
        memory = working_memory(order.engine, spec) or activation_model(component, model, spec)
        return Lowered(activation=memory, stand_in=aside / MODEL_FILE)


def rewrite(model: "ir.Model") -> None:
    """The passes, on a master without data."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from .attention import chunk_queries
    from .group_norm import group_norm

    group_norm(model.graph)
    chunk_queries(model.graph)
    RemoveUnusedNodesPass()(model)  # what has only brought a norm's parameters into shape


RTX_TARGETS = (
    RtxTarget(name="rtx", architectures=TOGETHER),
    RtxTarget(name="rtx-sm75", architectures=("sm75",), formats=TURING_FORMATS, instead=TURING_INSTEAD),
    *(RtxTarget(name=f"rtx-{name}", architectures=(name,)) for name in TOGETHER),
)
