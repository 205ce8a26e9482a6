"""The `cuda` targets: programs of our own kernels for NVIDIA GPUs, built on any machine."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.architecture import UNetArchitecture
from ....engine.runners.ort import MODEL_FILE
from ....engine.specs import Role
from ...quantize.formats import (
    A8_SCORES_TOKEN,
    FLOAT16,
    FLOAT32,
    W4,
    W4_HALVES,
    W4A8_TOKEN,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_PICTURE,
    W8A8_SIGNED,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
    Kind,
)
from ...quantize.recipes import Instead
from ...quantize.scores import with_scores, with_static
from ...target import LIBRARIES, AnySize, Lowered, Target, quiet
from ..cpu.target import CpuTarget
from ..onnx.files import save
from .binaries import COMPILED_FOR
from .forms import BY_TOKEN

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization
    from ...quantize.recipes import Recipe

ON_THE_GPU = frozenset({Role.TEXT_ENCODER, Role.CONDITIONER, Role.UNET, Role.VAE_DECODER})
"""The rest runs once a picture, on the processor."""
SLOTTED = frozenset({Role.TEXT_ENCODER, Role.CONDITIONER, Role.UNET})
"""What LoRAs have pairs for."""

# Products relative to those in 8 bits, as the matrix instructions of Ampere and Ada count them; weights in 8 bits that
# are multiplied as halves took 1.3 to 2.2 times the time of halves on an H100. 4 bits by 8 are an
# estimate: what unpacks and scales them takes three quarters of the cycles of the products beside it (SASS of sm_89).
# Of attention half of the products have 8 bits. Where scales are known before, no pass over the input rounds it.
PACE: Mapping[Format, float] = {
    W8A8_SIGNED: 0.9,
    W8A8_TOKEN: 1.0,
    W8A8_PICTURE: 1.0,
    W4A8_TOKEN: 1.5,
    W4_HALVES: 3.0,
    W8: 3.0,
    A8_SCORES_TOKEN: 1.5,
    FLOAT16: 2.0,
}

_BEHIND_WHAT_ROUNDS = r".*\.(?:attn\d\.to_out\.0|ff\.net\.2)"
"""Layers behind attention and GEGLU, whose kernels can write 8 bits."""


@dataclass(frozen=True, kw_only=True)
class HostTarget(CpuTarget):
    """What the processor does beside a GPU: as in a `cpu` engine, and in float32 what the GPU would do in halves."""

    instead: Instead = field(default_factory=lambda: {kind: {FLOAT16: FLOAT32} for kind in Kind})


@dataclass(frozen=True, kw_only=True)
class CudaTarget(AnySize):
    """Our kernels on some GPU generations."""

    name: str
    architectures: tuple[int, ...]
    runner: str = "cuda"
    dtype: str = "float16"
    runs_here: bool = False
    reading: float = 0.7
    formats: Mapping[Kind, frozenset[Format]] = field(
        default_factory=lambda: {
            Kind.LINEAR: frozenset({FLOAT16, W4A8_TOKEN, W4_HALVES, W8, W8A8_SIGNED, W8A8_TOKEN}),
            Kind.CONV: frozenset({FLOAT16, W4_HALVES, W8, W8A8_PICTURE}),
            Kind.EMBEDDING: frozenset({FLOAT16}),
            Kind.ATTENTION: frozenset({FLOAT16, A8_SCORES_TOKEN}),
        }
    )
    instead: Instead = field(
        default_factory=lambda: {
            Kind.LINEAR: {W4: W4_HALVES, W8A8_DYNAMIC: W8A8_TOKEN, W8A8_GROUP: W8A8_TOKEN},
            Kind.CONV: {W4: W4_HALVES, W8A8_STATIC: W8A8_PICTURE},
        }
    )
    pace: Mapping[Format, float] = field(default_factory=lambda: PACE)
    default_recipe: str = "int8"
    libraries: tuple[str, ...] = (*LIBRARIES, "triton")

    def of(self, role: Role) -> Target:
        """Itself for text encoders, U-Nets and the VAE; the processor makes the rest, once a picture."""
        return self if role in ON_THE_GPU else HostTarget()

    def suited(self, recipe: "Recipe", configuration: object) -> "Recipe":
        """With 8-bit scores in U-Nets whose linear layers take 8 bits, and scales known before behind what rounds."""
        if not isinstance(configuration, UNetArchitecture):
            return recipe
        known = with_static(recipe, _BEHIND_WHAT_ROUNDS, W8A8_SIGNED, beside=W8A8_TOKEN)
        return with_scores(known, A8_SCORES_TOKEN, beside=BY_TOKEN, floats=FLOAT16)

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
        """See `Target.lower`; writes `program.json`, weights and kernels; for some also `slots.json`, `words.bin`."""
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        from ...graph.master import attach
        from .component import lowered, write_component
        from .memory import working_memory
        from .openings import openings_of
        from .stand_in import stand_in
        from .stored import Packer

        lowering = lowered(model, spec, quantization.format, slotted=spec.role in SLOTTED)
        packer = Packer(weights, quantization)
        jobs = os.cpu_count() or 1
        program = write_component(lowering, packer, out, self.architectures, jobs=jobs, tell=tell)
        openings = openings_of(lowering.slots, model, program, spec, self.architectures)
        attach(model, weights)
        stand_in(model.graph, quantization)
        RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
        save(model, aside)
        return Lowered(
            activation=working_memory(program, spec, self.architectures),
            openings=openings,
            stand_in=aside / MODEL_FILE,
        )


CUDA_TARGETS = (
    CudaTarget(name="cuda", architectures=COMPILED_FOR),
    *(CudaTarget(name=f"cuda-sm{sm}", architectures=(sm,)) for sm in COMPILED_FOR),
)
