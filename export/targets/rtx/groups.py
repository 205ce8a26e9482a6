"""GPU generations that share an engine file.

TensorRT for RTX makes one program for all generations of a file, the least common one, so that a file for several is as
large as for one, and what one of them lacks the others lose. Hence an engine may have several files for a component,
whose runner loads the one for the card at hand (`engine.folder.variants`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from ....engine.folder.manifest import ActivationModel
from ....engine.specs import Role
from ...quantize.formats import FP8_TENSOR, W4_HALVES, W8, W8A8_SIGNED, W8A8_SIGNED_CHANNEL, Format, Kind
from ...quantize.recipes import Recipe

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
ONLY: Mapping[Format, tuple[str, ...]] = {FP8_TENSOR: ("sm89", "sm120", "sm121")}
"""Formats that not all of `TOGETHER` multiply in, and those that do."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Generations that share a file, and what their layers have in place of the target's formats that they lack.

    That has more bits, never fewer: an engine is held to the reference by its first file's form, and the others must be
    no further off.
    """

    architectures: tuple[str, ...]
    instead: Mapping[Kind, Mapping[Format, Format]] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """The name of its file where it is not the first: `model.engine` → `model.sm75.engine`."""
        path = PurePath(name)
        return f"{path.stem}.{'-'.join(self.architectures)}{path.suffix}"


TURING = Group(
    architectures=("sm75",),
    instead={
        Kind.LINEAR: {W4_HALVES: W8},
        Kind.CONV: dict.fromkeys((W4_HALVES, W8A8_SIGNED, W8A8_SIGNED_CHANNEL), W8),
    },
)
"""It multiplies matrices in int8; its convolutions would become halves with rounded inputs. It has no 4 bits."""


def able(architectures: tuple[str, ...], recipe: Recipe) -> tuple[str, ...]:
    """Those that can do all that the recipe asks for; all components of an engine are for the same ones."""
    asked = {format for role in Role for formats in recipe.formats(role).values() for format in formats}
    return tuple(name for name in architectures if not asked & lacked(name))


def lacked(architecture: str) -> frozenset[Format]:
    """The formats that one of `TOGETHER` does not multiply in."""
    return frozenset(format for format, those in ONLY.items() if architecture not in those)


def most(found: Iterable[ActivationModel]) -> ActivationModel:
    """Working memory that is enough for each of several files."""
    models = tuple(found)
    terms = {key: max(model.terms.get(key, 0.0) for model in models) for model in models for key in model.terms}
    return ActivationModel(terms=terms, dequantized_bytes=max(model.dequantized_bytes for model in models))
