"""A VAE's half for cards that have no place for its working memory: an engine for each segment of bands of rows.

The master is cut before anything else is done to it, so that every segment is lowered as a component is, in the formats
that its layers have in the whole. What lies between segments is halves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from ....engine.bands.program import BandProgram, Segment
from ....engine.bands.read import BANDS_FILE, to_json
from ....engine.bands.sizes import band_shapes, stored_by_segment, stored_bytes
from ....engine.compiled.arena import arena_at
from ....engine.compiled.read import read_compiled
from ....engine.errors import IncompatibleError, StorageError
from ....engine.folder.manifest import ActivationModel, Streaming
from ....engine.folder.manifest import Segment as Part
from ...bands.segment import Cut
from ...bands.write import cut_graph
from ...graph.activations import fit
from .profiles import LARGEST, LATENT, RANGES, Profile, sampled_sides

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec
    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

_FILE = "segment_{:02}.engine"
BAND_NUMBERS, SCORES = 1 << 23, 1 << 24
"""A band's widest value takes 16 MiB on the card, and there are about 310 calls for a picture of 1024 × 1024."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Whose segments are built, for which GPU generations and by which library, and up to how many pixels a side."""

    component: str
    spec: "ComponentSpec"
    architectures: tuple[str, ...]
    library: str
    largest: int = LARGEST


def write_bands(
    order: Bands,
    master: "ir.Model",
    weights: "WeightSource",
    quantization: "Quantization",
    out: Path,
    aside: Path,
    tell: Callable[[str], None],
) -> Streaming:
    """Build the segments of an untouched master into `out`, with `bands.json`, and say what they take.

    Raises as building any engine does, and `StorageError` when writing fails.
    """
    program, cuts = cut_for_bands(master)
    for index, cut in enumerate(cuts):
        told = f"segment {index + 1} of {len(cuts)}"
        _build(order, program, cut, weights, quantization, out, aside, partial(_tell, tell, told))
    try:
        (out / BANDS_FILE).write_text(to_json(program), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return Streaming(
        program=BANDS_FILE,
        segments=tuple(Part(file=s.file, start=0, size=(out / s.file).stat().st_size) for s in program.segments),
        # Where most is kept, bands are at their highest, and what a call takes hardly grows with the picture.
        activation=ActivationModel(terms={"1": max(map(_beside(program, out), sampled_sides(order.largest)))}),
        carried=_carried(order.spec, program, sampled_sides(order.largest)),
    )


def cut_for_bands(master: "ir.Model") -> tuple[BandProgram, list[Cut]]:
    """A half's segments; what goes into it is halves, as what lies between (see `edges`)."""
    program, cuts = cut_graph(master.graph, _FILE, band_numbers=BAND_NUMBERS, scores=SCORES)
    given = replace(program.values[program.input], dtype="float16")
    return replace(program, values={**program.values, program.input: given}), cuts


def band_profiles(program: BandProgram, segment: Segment, largest: int = LARGEST) -> dict[str, Profile]:
    """Least, best and most shape of what a segment is given, over all sizes of a picture and of a band."""
    sides, end = RANGES["height"], largest // LATENT
    least, best, most = (band_shapes(program, segment, s, s) for s in (sides.least, sides.best, end))
    found: dict[str, Profile] = {}
    for name, shape in best.items():
        rows = len(shape) == 4  # which are few in a wide picture and many in a narrow one
        value = name if name in program.values else segment.norm  # whose rows are told to be inside
        beyond = next((read.above + read.halo for read in segment.reads if read.value == value), 0)
        scale = program.values[value].scale
        low = (*shape[:2], scale // program.scale(segment) + beyond, least[name][3]) if rows else least[name]
        high = (*shape[:2], end * scale + beyond, most[name][3]) if rows else most[name]
        found[name] = (low, shape, high)
    return found


def _build(
    order: Bands, program: BandProgram, cut: Cut, weights: "WeightSource", quantization: "Quantization", out: Path,
    aside: Path, tell: Callable[[str], None],
) -> None:  # fmt: skip
    from .builder import Order
    from .process import build_aside
    from .target import COMPILED_FILE, write_onnx

    beside = aside / "segment"
    beside.mkdir()
    write_onnx(cut.model, weights, quantization, beside)
    build_aside(
        Order(
            component=f"{order.component} ({cut.segment.value})",
            onnx=beside / COMPILED_FILE,
            profiles=band_profiles(program, cut.segment, order.largest),
            architectures=order.architectures,
            engine=out / cut.segment.file,
            library=order.library,
        ),
        tell,
    )
    rmtree(beside)


def _beside(program: BandProgram, folder: Path) -> Callable[[int], int]:
    """Bytes beyond the most that is kept, for latents of some side: what segments are given and work with.

    The one that works with most, attention, runs where a picture is smallest, and little is kept then.
    """
    compiled = {segment.file: read_compiled(folder / segment.file) for segment in program.segments}

    def measure(side: int) -> int:
        found = []
        for segment, kept in zip(program.segments, stored_by_segment(program, side), strict=True):
            shapes, read = band_shapes(program, segment, side, side), compiled[segment.file]
            arena = None if read is None else arena_at(read, shapes)
            if arena is None:
                raise IncompatibleError(
                    f"{segment.file}: what it takes cannot be read from its program, which another version of the "
                    "library has written; install the one that pocketxl names"
                )
            found.append(kept + arena + sum(_bytes(program, name, shape) for name, shape in shapes.items()))
        return max(found) - stored_bytes(program, side)

    return measure


def _tell(tell: Callable[[str], None], which: str, text: str) -> None:
    tell(f"{which}: {text}")


def _bytes(program: BandProgram, name: str, shape: tuple[int, ...]) -> int:
    item = 4 if name not in program.values else program.values[name].item_bytes
    return int(item * prod(shape))


def _carried(spec: "ComponentSpec", program: BandProgram, sides: tuple[int, ...]) -> ActivationModel:
    def measure(sizes: Mapping[str, int]) -> int:
        return stored_bytes(program, sizes["height"])

    found = fit(spec, measure, samples={"batch": (1,), "side": sides}, squares=False)
    assert found is not None  # `measure` always tells
    return found
