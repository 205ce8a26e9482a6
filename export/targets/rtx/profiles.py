"""The sizes that an `rtx` engine takes: a range for each symbol of the specs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....engine.errors import IncompatibleError
from ....engine.specs import Dim

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a dimension may be at run time; kernels are chosen for `best`."""

    least: int
    best: int
    most: int


# By the symbols of `engine.specs`; the picture's size follows from the latents'.
RANGES = {
    "batch": Range(least=1, best=2, most=8),
    "tokens": Range(least=77, best=77, most=4 * 77),
    "steps": Range(least=1, best=30, most=1000),
    "height": Range(least=8, best=128, most=256),
    "width": Range(least=8, best=128, most=256),
}


def dimensions(value: "ir.Value") -> tuple[Dim, ...]:
    """Numbers and symbols of one input of a master."""
    assert value.shape is not None, f"input {value.name} has no shape"
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def profile(component: str, name: str, shape: tuple[Dim, ...]) -> list[tuple[int, ...]]:
    """Least, best and most shape of one input; `IncompatibleError` names symbols without a range."""
    unknown = [dim for dim in shape if isinstance(dim, str) and dim not in RANGES]
    if unknown:
        raise IncompatibleError(
            f"{component}: input {name} has the dimensions {unknown}, ranges are known for {list(RANGES)}"
        )
    ranges = [RANGES[d] if isinstance(d, str) else Range(least=d, best=d, most=d) for d in shape]
    return [tuple(r.least for r in ranges), tuple(r.best for r in ranges), tuple(r.most for r in ranges)]
