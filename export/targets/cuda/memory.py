"""The working memory of a program's calls: its arena at the sizes of a call, on whichever architecture needs most."""

from collections.abc import Mapping, Sequence

from ....engine.errors import RequestError
from ....engine.folder.manifest import ActivationModel
from ....engine.program.arena import lay_out
from ....engine.program.calls import resolve
from ....engine.program.checks import words_of
from ....engine.program.program import Program
from ....engine.program.sizes import Sizes
from ....engine.specs import ComponentSpec
from ....kernels.architecture import architecture
from ...graph.activations import fit

_SAMPLES = {"batch": (1, 2), "tokens": (77, 308), "steps": (1, 50), "side": (16, 64, 128, 192)}


def working_memory(
    program: Program, spec: ComponentSpec, architectures: Sequence[int], *, rank: int = 0
) -> ActivationModel:
    """Arenas of sampled sizes, fitted; a little above each. `rank`: of a program with slots."""
    table = words_of(program)
    tokens = 77 if table is None else table.tokens
    outputs = [value.name for edge in program.outputs for value in edge.values]

    def measure(sizes: Mapping[str, int]) -> int | None:
        at = Sizes(
            **{
                "height": 1,
                "width": 1,
                "steps": 1,
                "tokens": tokens,
                "rank": rank,
                **{name: size for name, size in sizes.items() if not name.startswith("image_")},
            }
        )
        found = []
        for sm in architectures:
            try:
                found.append(lay_out(resolve(program, at, architecture(sm)), outputs).size)
            except RequestError:  # more than the kernels count: such a picture is refused before it takes any memory
                continue
        return max(found, default=None)

    fitted = fit(spec, measure, samples=_SAMPLES, squares=False)
    assert fitted is not None, "the least of the sizes is always possible"
    return fitted
