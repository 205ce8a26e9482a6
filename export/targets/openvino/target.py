"""The `openvino` target: U-Nets and decoders as ONNX files that OpenVINO runs, all else as in a `cpu` engine.

On a processor with AMX OpenVINO's attention in bfloat16 and its convolutions are far faster than those of ONNX Runtime,
which has no attention but in float32: a forward at 1024 × 1024 takes about half the time (docs/openvino.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.architecture import UNetArchitecture, VaeArchitecture
from ....engine.errors import IncompatibleError
from ....engine.runners.openvino_session import import_openvino, unsuited_processor
from ....engine.specs import Role
from ...quantize.formats import (
    A8_SCORES,
    FLOAT32,
    W8A8_DYNAMIC,
    W8A8_SIGNED,
    W8A8_SIGNED_CHANNEL,
    W8A8_STATIC,
    Format,
    Kind,
)
from ...quantize.recipes import Instead
from ...quantize.scores import with_scores
from ...target import LIBRARIES, AnySize, Lowered, Target, quiet
from ..cpu.target import BAND_BYTES, BAND_PIXELS, CpuTarget
from ..onnx.files import save

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization
    from ...quantize.recipes import Recipe

_SIGNED = (W8A8_SIGNED, W8A8_SIGNED_CHANNEL)
# Products relative to the fastest of their kind, as AMX multiplies int8 and bfloat16; of attention half are rounded.
PACE: Mapping[Format, float] = {W8A8_SIGNED: 1.0, W8A8_SIGNED_CHANNEL: 1.1, A8_SCORES: 1.6, FLOAT32: 2.2}


@dataclass(frozen=True, kw_only=True)
class OpenVinoTarget(AnySize):
    """OpenVINO on a processor; a model is compiled where it runs, for the sizes of the picture at hand."""

    band_bytes: int = BAND_BYTES
    name: str = "openvino"
    runner: str = "openvino"
    dtype: str = "float32"
    runs_here: bool = True
    reading: float = 1.0
    formats: Mapping[Kind, frozenset[Format]] = field(
        default_factory=lambda: {
            Kind.LINEAR: frozenset({FLOAT32, *_SIGNED}),
            Kind.CONV: frozenset({FLOAT32, *_SIGNED}),
            Kind.EMBEDDING: frozenset({FLOAT32}),
            Kind.ATTENTION: frozenset({FLOAT32, A8_SCORES}),
        }
    )
    instead: Instead = field(
        default_factory=lambda: {Kind.LINEAR: {W8A8_DYNAMIC: _SIGNED}, Kind.CONV: {W8A8_STATIC: _SIGNED}}
    )
    pace: Mapping[Format, float] = field(default_factory=lambda: PACE)
    default_recipe: str = "int8"
    libraries: tuple[str, ...] = (*LIBRARIES, "openvino")

    def machine(self) -> Mapping[str, str]:
        """Nothing. Raises `IncompatibleError` where what is built could not be held to the reference."""
        import_openvino()
        if (unsuited := unsuited_processor()) is not None:
            raise IncompatibleError(unsuited)
        return {}

    def of(self, role: Role) -> Target:
        """Itself for U-Nets and the VAE's decoder; ONNX Runtime runs the rest."""
        return self if role in (Role.UNET, Role.VAE_DECODER) else CpuTarget()

    def suited(self, recipe: "Recipe", configuration: object) -> "Recipe":
        """With int8 scores in U-Nets; in VAEs with a scale for each channel of what convolutions take.

        Of wide VAEs the outer convolutions too: a pass that does many things to each number does not mind another
        multiplication.
        """
        from ..cpu.conv_patches import with_outer

        if isinstance(configuration, UNetArchitecture):
            return with_scores(recipe, A8_SCORES, beside=_SIGNED, floats=FLOAT32)
        if not isinstance(configuration, VaeArchitecture):
            return recipe
        scaled = recipe.with_formats({Kind.CONV: {W8A8_SIGNED: W8A8_SIGNED_CHANNEL}})
        return with_outer(scaled, configuration)

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
        """See `Target.lower`; writes `model.onnx` and `model.onnx.data`, and a wide decoder's segments over bands too.

        Memory: the graph and one layer at a time.
        """
        from ...graph.activations import Outline
        from ...graph.doubled_conv import Turns, doubled_convs
        from ...graph.layers import find_layers
        from ...graph.master import attach
        from ...graph.stand_ins import expand_all
        from .attention import attention_in_chunks
        from .bands import write_bands

        activation = Outline.of(component, model, spec).whole()
        attach(model, weights)
        convolutions = [layer for layer in find_layers(model.graph) if layer.kind is Kind.CONV]
        doubled_convs(model.graph, convolutions, Turns.DEPTH_TO_SPACE)
        banded = spec.role is Role.VAE_DECODER and activation.bytes_at(BAND_PIXELS, batch=1) > self.band_bytes
        if banded:
            write_bands(model.clone(), weights, quantization, out)
            attention_in_chunks(model.graph)
        expand_all(model.graph)
        rewrite(model, weights, quantization)
        save(model, out)
        return Lowered(runner="openvino_bands" if banded else self.runner, activation=activation)


def rewrite(model: "ir.Model", weights: "WeightSource", quantization: "Quantization") -> None:
    """The passes: layers in their formats, with their weights."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ...graph.fold_transpose import fold_transpose
    from ...graph.master import attach
    from ...quantize.query_keys import QueryKeys
    from .products import products
    from .scores import int8_scores

    attach(model, weights)
    int8_scores(model.graph, {n: own for n, own in quantization.attentions.items() if isinstance(own, QueryKeys)})
    products(model.graph, quantization)
    RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
    fold_transpose(model.graph)
    RemoveUnusedNodesPass()(model)
