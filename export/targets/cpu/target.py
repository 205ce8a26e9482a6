"""The `cpu` target: an ONNX file for ONNX Runtime's CPU provider, weights beside it as external data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ....engine.specs import Role
from ...graph.segments import MOST_BYTES
from ...quantize.formats import (
    FLOAT32,
    W4,
    W4A8,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
    Kind,
)
from ...quantize.recipes import Instead, Recipe
from ...target import LIBRARIES, AnySize, Lowered, quiet
from ..onnx.files import save

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

# Products relative to the fastest of their kind; only proportions count. Floats by processors with VNNI (658 against
# 182 GFLOP/s); with AMX they were 3.6 to 9.4. Groups are between what 8-bit `MatMulNBits` took with VNNI and with AMX.
PACE: Mapping[Format, float] = {
    W8A8_DYNAMIC: 1.0,
    W8A8_STATIC: 1.0,
    W8A8_TOKEN: 1.3,
    W8A8_GROUP: 3.0,
    W4A8: 3.0,
    W8: 3.7,
    W4: 3.7,
    FLOAT32: 3.6,
}

BAND_PIXELS, BAND_BYTES = 1 << 20, 1 << 30
"""A VAE's half that takes more than so many bytes for so many pixels runs over bands. SDXL's decoder has 3.2 GB alive
there and its encoder 1.6; at 512 × 512 the one takes a tenth longer over bands, the other 4 % (processor time on a busy
machine). The miniature's decoder took two to three times as long for small pictures."""


@dataclass(frozen=True, kw_only=True)
class CpuTarget(AnySize):
    """ONNX Runtime on any x86-64 or Arm processor."""

    segment_bytes: int = MOST_BYTES
    """Weights of a segment at most; see `segments`."""
    band_bytes: int = BAND_BYTES
    name: str = "cpu"
    runner: str = "ort"
    dtype: str = "float32"
    runs_here: bool = True
    reading: float = 1.0
    formats: Mapping[Kind, frozenset[Format]] = field(
        default_factory=lambda: {
            Kind.LINEAR: frozenset({FLOAT32, W8, W8A8_DYNAMIC, W8A8_TOKEN, W8A8_GROUP, W4, W4A8}),
            Kind.CONV: frozenset({FLOAT32, W8, W8A8_STATIC, W4}),
            Kind.EMBEDDING: frozenset({FLOAT32, W8, W4}),
        }
    )
    instead: Instead = field(default_factory=dict)
    pace: Mapping[Format, float] = field(default_factory=lambda: PACE)
    default_recipe: str = "int8"
    libraries: tuple[str, ...] = LIBRARIES

    def suited(self, recipe: Recipe, configuration: object) -> Recipe:
        """With a wide VAE's outer convolutions in 8 bits too: see `conv_patches`."""
        from .conv_patches import with_outer

        return with_outer(recipe, configuration)

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
        """See `Target.lower`; writes `model.onnx` and `model.onnx.data`, with open graphs and segments beside.

        A wide VAE's are segments that run over bands, others' are streamed where a budget has no place for the whole.
        Memory: the graph and one layer at a time.
        """
        from ....engine.companion import is_companions
        from ....engine.folder.manifest import Streaming
        from ....engine.runners.ort import MODEL_FILE
        from ...bands.write import write_bands
        from ...graph.activations import Outline, dequantized_bytes
        from ...graph.master import attach
        from ...graph.segments import order_by_use, write_segments
        from ...graph.stand_ins import expand_all
        from ..onnx.openings import describe_openings, opened, save_opened, weighed
        from .conv_int8 import patch_bytes
        from .linear_int8 import int8_bytes
        from .weight_only import exact_threads

        # Before the passes: ONNX's shape inference does not know the nodes of ONNX Runtime's own that they put in.
        scratch = patch_bytes(model.graph, quantization)
        outline = Outline.of(component, model, spec, scratch)
        openings = None if is_companions(component) else describe_openings(component, model, spec, scratch)
        attach(model, weights)
        open_models = {} if openings is None else opened(model, spec)
        rewrite(model, quantization)
        vae = spec.role in (Role.VAE_DECODER, Role.VAE_ENCODER)  # whose weights are the least of what it takes
        banded = vae and outline.whole().bytes_at(BAND_PIXELS, batch=1) > self.band_bytes
        if not banded:
            expand_all(model.graph)
        order_by_use(model.graph)
        save(model, out)
        for one in open_models.values():
            rewrite(one, quantization)
            expand_all(one.graph)
        sizes = save_opened(open_models, out)
        streaming = None
        if banded:
            write_bands(out / MODEL_FILE)
        if not vae:
            segments, cuts = write_segments(out, self.segment_bytes)
            if segments:
                inside, carried = outline.segments([cut.behind for cut in cuts], [cut.crossing for cut in cuts])
                streaming = Streaming(segments=segments, activation=inside, carried=carried)
        return Lowered(
            runner="ort_bands" if banded else self.runner,
            streaming=streaming,
            openings=None if openings is None else weighed(openings, sizes),
            activation=replace(outline.whole(), dequantized_bytes=dequantized_bytes(model.graph)),
            exact_threads=exact_threads(model.graph),
            int8_bytes=int8_bytes(model.graph),
        )


def rewrite(model: "ir.Model", quantization: "Quantization") -> None:
    """The passes, in their order: formats first, while layers still look as the master wrote them, then fusions.

    What stand-ins stand for is left open.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ...graph.fold_transpose import fold_transpose
    from ...graph.layers import MICROSOFT, MICROSOFT_VERSION
    from ...graph.split_linear import split_linear
    from ..onnx.attention_mha import attention_mha
    from ..onnx.linear_groups import linear_groups
    from .conv_int8 import conv_int8
    from .conv_patches import wide_doublings
    from .linear_int8 import linear_int8
    from .linear_token import linear_token
    from .silu import silu
    from .weight_groups import weight_groups
    from .weight_only import weight_only

    graph = model.graph
    graph.opset_imports[MICROSOFT] = MICROSOFT_VERSION
    split_linear(graph)
    for lower in (linear_int8, linear_token, linear_groups, conv_int8, weight_only, weight_groups):
        lower(graph, quantization)
    wide_doublings(graph, quantization)
    RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
    fold_transpose(graph)
    silu(graph)
    attention_mha(graph)
    RemoveUnusedNodesPass()(model)
