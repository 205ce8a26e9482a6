"""The `rtx` targets: TensorRT for RTX engines, built on any machine, for all GPU generations or for one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Self

from ....engine.errors import StorageError
from ....engine.runners.ort import MODEL_FILE
from ....engine.runners.tensorrt import ENGINE_FILE
from ....engine.runners.tensorrt_library import RTX, TensorRTLibrary, import_tensorrt
from ....engine.specs import Role
from ...quantize.formats import (
    FLOAT16,
    FP8_TENSOR,
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
from ...quantize.recipes import Instead, Recipe
from ...target import LIBRARIES, Lowered, quiet
from .groups import ARCHITECTURES, ONLY, TOGETHER, TURING, Group, able, lacked, most
from .profiles import LARGEST, profiles, ranges

__all__ = ["ARCHITECTURES", "RTX_TARGETS", "TOGETHER", "RtxTarget"]

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.folder.manifest import ActivationModel
    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

_SIGNED = (W8A8_SIGNED, W8A8_SIGNED_CHANNEL)
_ANYWHERE = frozenset({FLOAT16, W4_HALVES, W8, *_SIGNED})
FORMATS: Mapping[Kind, frozenset[Format]] = {
    Kind.LINEAR: _ANYWHERE | {*ONLY},
    Kind.CONV: _ANYWHERE | {*ONLY},
    Kind.ATTENTION: frozenset({FLOAT16, FP8_TENSOR}),
    Kind.EMBEDDING: frozenset({FLOAT16}),
}
INSTEAD: Instead = {
    Kind.LINEAR: {W4: W4_HALVES, W8A8_DYNAMIC: _SIGNED},
    Kind.CONV: {W4: W4_HALVES, W8A8_STATIC: _SIGNED},
}
# As an engine of its own Turing's are refused what it lacks, and int8 convolutions are chosen as what they become.
TURING_FORMATS = {**FORMATS, Kind.LINEAR: frozenset({FLOAT16, W8, *_SIGNED}), Kind.CONV: frozenset({FLOAT16, W8})}
TURING_INSTEAD: Instead = {Kind.LINEAR: {W8A8_DYNAMIC: _SIGNED}, Kind.CONV: {W8A8_STATIC: W8}}
# By the units that multiply, of which 8-bit ones are twice as fast on every generation; scales for channels are a pass
# more over the input, and halves read more memory. Not measured.
PACE: Mapping[Format, float] = {
    W8A8_SIGNED: 1.0,
    FP8_TENSOR: 1.0,
    W8A8_SIGNED_CHANNEL: 1.2,
    W4_HALVES: 2.0,
    W8: 2.0,
    FLOAT16: 2.2,
}

COMPILED_FILE = "compiled.onnx"
"""What the compiler reads, beside the stand-in, whose weights it has."""
BAND_PIXELS = 1024 * 1024
_LESS_COMMON = "others"
"""Folder for what files other than the first are made from."""


@dataclass(frozen=True, kw_only=True)
class RtxTarget:
    """TensorRT for RTX on some GPU generations; `others` have a file of their own in each component."""

    name: str
    architectures: tuple[str, ...]
    others: tuple[Group, ...] = ()
    runner: str = "tensorrt"
    dtype: str = "float16"
    runs_here: bool = False
    reading: float = 0.3
    formats: Mapping[Kind, frozenset[Format]] = field(default_factory=lambda: FORMATS)
    instead: Instead = field(default_factory=lambda: INSTEAD)
    pace: Mapping[Format, float] = field(default_factory=lambda: PACE)
    band_bytes: int | None = 512 << 20
    """A VAE's half that takes more than so many bytes at `BAND_PIXELS` also gets engines for segments over bands; None:
    never. They are for one group of generations."""
    largest: int = LARGEST
    """Pixels of a picture's longest side."""
    default_recipe: str = "fp16"
    libraries: tuple[str, ...] = (*LIBRARIES, "tensorrt-rtx-cu12")
    library: TensorRTLibrary = RTX

    @property
    def described(self) -> str:
        """See `Target`."""
        return self.name if self.largest == LARGEST else f"{self.name}, for pictures up to {self.largest} pixels a side"

    def sized(self, largest: int) -> Self:
        """See `Target`."""
        return replace(self, largest=largest)

    def suited(self, recipe: Recipe, configuration: object) -> Recipe:
        """As it is."""
        return recipe

    def machine(self) -> Mapping[str, str]:
        """Nothing. Raises `IncompatibleError` where the library is not here."""
        import_tensorrt(self.library)
        return {}

    def files(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """One by the recipe, and one for each of the others, by what they do instead."""
        return (recipe, *(recipe.with_formats(group.instead) for group in self.others))

    def of(self, role: Role) -> Self:
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
        """See `Target.lower`; writes `model.engine`, and `model.sm75.engine` and so on for the others.

        The stand-in is of the first, has its weights, and the edge that the spec declares. The compiler reads a second
        ONNX file, which shares the first one's weights and has halves at its edge. The builder names temporaries in an
        order that changes from run to run, so engines built twice from the same inputs are of equal size but differ in
        some bytes.
        """
        from ...graph.activations import activation_model
        from .bands import Bands, write_bands
        from .builder import Order
        from .fp8_attention import with_tokens
        from .process import build_aside

        vae = spec.role in (Role.VAE_DECODER, Role.VAE_ENCODER)
        most_bytes = self.band_bytes if vae and not self.others else None
        uncut = None if most_bytes is None else model.clone()
        masters = [model, *(model.clone() for _ in self.others)]
        groups = (Group(architectures=able(self.architectures, quantization.recipe)), *self.others)
        sizes = with_tokens(profiles(component, spec, self.largest), spec, model.graph, quantization.attentions)
        memory, architectures = [], {}
        for master, group in zip(masters, groups, strict=True):
            first = master is model
            name, beside = (ENGINE_FILE, aside) if first else (group.file(ENGINE_FILE), aside / _LESS_COMMON)
            beside.mkdir(exist_ok=True)
            numbers = quantization if first else replace(quantization, instead=group.instead)
            order = Order(
                component=component,
                onnx=beside / COMPILED_FILE,
                profiles=sizes,
                architectures=group.architectures,
                engine=out / name,
                library=self.library.extra,
            )
            rewrite(master, self.largest)
            write_onnx(master, weights, numbers, beside)
            build_aside(order, tell)
            memory.append(self.memory(order.engine, spec) or activation_model(component, master, spec))
            if group.architectures:
                architectures[name] = group.architectures
            if not first:
                rmtree(beside)
        activation, streaming = most(memory), None
        if uncut is not None and most_bytes is not None and activation.bytes_at(BAND_PIXELS, batch=1) > most_bytes:
            parts = Bands(
                component=component, spec=spec, architectures=groups[0].architectures, library=self.library.extra,
                largest=self.largest,
            )  # fmt: skip
            streaming = write_bands(parts, uncut, weights, quantization, out, aside, tell)
        return Lowered(
            activation=activation,
            streaming=streaming,
            architectures=architectures,
            ranges=ranges(spec, sizes),
            stand_in=None if self.runs_here else aside / MODEL_FILE,
        )

    def memory(self, engine: Path, spec: "ComponentSpec") -> "ActivationModel | None":
        """The working memory of an engine that was built, or None where it does not tell."""
        from .memory import working_memory

        return working_memory(engine, spec, self.largest)


def write_onnx(model: "ir.Model", weights: "WeightSource", quantization: "Quantization", folder: Path) -> None:
    """A rewritten master as the stand-in and as what the compiler reads; the master has the weights then.

    Raises `StorageError` when writing fails.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ...graph.master import attach
    from ..onnx.weight_halves import weight_halves
    from .edges import half_edges
    from .fp8 import fp8
    from .fp8_attention import fp8_attention, opened
    from .int8 import int8
    from .weight_groups import weight_groups

    attach(model, weights)
    steps = {name: own for name, own in quantization.attentions.items() if isinstance(own, tuple)}
    attentions = fp8_attention(model.graph, steps)
    for rewrite_layers in (int8, fp8, weight_groups, weight_halves):
        rewrite_layers(model.graph, quantization)
    RemoveUnusedNodesPass()(model)  # transposes of weights that are quantized by now
    try:
        ir.save(model, folder / MODEL_FILE, external_data=f"{MODEL_FILE}.data")
        halves = ir.load(folder / MODEL_FILE)
        half_edges(halves.graph)
        ir.save(halves, folder / COMPILED_FILE)
        if attentions:
            stand_in = ir.load(folder / MODEL_FILE)
            opened(stand_in.graph, attentions)
            ir.save(stand_in, folder / MODEL_FILE)
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or folder}: {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error


def without(lacking: Iterable[Format]) -> Mapping[Kind, frozenset[Format]]:
    """What can be done with each kind of layer where these formats are lacking."""
    return {kind: formats - {*lacking} for kind, formats in FORMATS.items()}


def rewrite(model: "ir.Model", largest: int = LARGEST) -> None:
    """The passes, on a master without data, for pictures of up to `largest` pixels a side."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from ...graph.query_chunks import chunk_queries
    from .group_norm import group_norm
    from .heads import CHUNKS, FUSED_HEADS, MORE_CHUNKS

    group_norm(model.graph)
    chunk_queries(model.graph, CHUNKS if largest <= LARGEST else MORE_CHUNKS, beyond=FUSED_HEADS[-1])
    RemoveUnusedNodesPass()(model)  # what has only brought a norm's parameters into shape


RTX_TARGETS = (
    RtxTarget(name="rtx", architectures=TOGETHER),
    RtxTarget(name="rtx-all", architectures=TOGETHER, others=(TURING,), formats=without(ONLY)),
    RtxTarget(name="rtx-sm75", architectures=("sm75",), formats=TURING_FORMATS, instead=TURING_INSTEAD),
    *(RtxTarget(name=f"rtx-{name}", architectures=(name,), formats=without(lacked(name))) for name in TOGETHER),
)
