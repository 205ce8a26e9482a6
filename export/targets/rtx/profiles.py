"""The sizes that an `rtx` engine takes: a range for each symbol of the specs.

One range for all sizes: the runtime fits kernels to the sizes that it meets. The largest size costs no memory by itself
where the runner asks for working memory by the sizes of the call. Not in it: pictures beyond 1536², unless the build
asks for them, and prompts of more than four chunks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....engine.errors import IncompatibleError
from ....engine.specs import ComponentSpec, Dim, Role

if TYPE_CHECKING:
    import onnx_ir as ir

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Least, best and most shape of an input."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a dimension may be at run time; kernels are chosen for `best`."""

    least: int
    best: int
    most: int


# By the symbols of `engine.specs`; the picture's size follows from the latents'.
RANGES = {
    "batch": Range(least=1, best=2, most=2),  # both sides of guidance; more pictures are more calls
    "tokens": Range(least=77, best=77, most=4 * 77),
    "steps": Range(least=1, best=30, most=1000),
    "height": Range(least=8, best=128, most=192),
    "width": Range(least=8, best=128, most=192),
}
LATENT = 8
"""Pixels of the picture to one of the latents, in each direction."""
LARGEST = LATENT * RANGES["height"].most
"""Pixels of a picture's longest side, unless a build asks for more."""
_SIDES = ("height", "width")
_ALONE = Range(least=1, best=1, most=1)
SINGLE = (Role.VAE_DECODER, Role.VAE_ENCODER, Role.TINY_DECODER)
"""Components that are built for one row, since no call has more. A text encoder's have one too, but attention with one
head and no size that varies has no fused kernel."""


def range_of(role: Role, symbol: str, largest: int = LARGEST) -> Range | None:
    """What a symbol may be in a component of that role; None if no range is known."""
    if symbol == "batch" and role in SINGLE:
        return _ALONE
    side, pixels = symbol.removeprefix("image_"), LATENT if symbol.startswith("image_") else 1
    found = RANGES.get(side)
    if found is None or side not in _SIDES:
        return found if side == symbol else None
    return Range(least=found.least * pixels, best=found.best * pixels, most=largest // LATENT * pixels)


def ranges(spec: ComponentSpec, sizes: Mapping[str, Profile]) -> dict[str, tuple[int, ...]]:
    """Symbol → least and most, of those that a component's inputs have, by their profiles."""
    found: dict[str, tuple[int, ...]] = {}
    for tensor in spec.inputs:
        least, _, most = sizes[tensor.name]
        edges = zip(tensor.shape, least, most, strict=True)
        found |= {dim: (low, high) for dim, low, high in edges if isinstance(dim, str)}
    return found


def dimensions(value: "ir.Value") -> tuple[Dim, ...]:
    """Numbers and symbols of one input of a master."""
    assert value.shape is not None, f"input {value.name} has no shape"
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def profile(component: str, role: Role, name: str, shape: tuple[Dim, ...], largest: int = LARGEST) -> Profile:
    """Least, best and most shape of one input; `IncompatibleError` names symbols without a range."""
    found = [range_of(role, d, largest) if isinstance(d, str) else Range(least=d, best=d, most=d) for d in shape]
    ranges = [r for r in found if r is not None]
    if len(ranges) < len(shape):
        unknown = [dim for dim, r in zip(shape, found, strict=True) if r is None]
        raise IncompatibleError(
            f"{component}: input {name} has the dimensions {unknown}, ranges are known for {list(RANGES)}"
        )
    return tuple(r.least for r in ranges), tuple(r.best for r in ranges), tuple(r.most for r in ranges)


def profiles(component: str, spec: ComponentSpec, largest: int = LARGEST) -> dict[str, Profile]:
    """That of every input, for pictures of up to `largest` pixels a side."""
    return {tensor.name: profile(component, spec.role, tensor.name, tensor.shape, largest) for tensor in spec.inputs}


def sampled_sides(largest: int) -> tuple[int, ...]:
    """Of the latents, for which memory is told: from the least to the most, as it is fixed up to some size."""
    return (8, 64, 128, largest // LATENT)
