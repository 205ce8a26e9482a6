"""How large a component will be, from the formats of its layers, before anything is read."""

from collections.abc import Iterator
from typing import Protocol

from ...engine.specs import Role
from .formats import Kind
from .recipes import Recipe

# Around each tensor: its name, the node that takes it, and the page that it is aligned to.
_BYTES_AROUND = 8192


class Shapes(Protocol):
    """What is asked of `export.checkpoint.weights.Weights`."""

    def __iter__(self) -> Iterator[str]:
        """State-dict names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one of them."""


def engine_bytes(weights: Shapes, recipe: Recipe, role: Role) -> int:
    """An upper estimate of a component's files, in bytes: every tensor in its format, biases and norms as kept."""
    total = 0.0
    for name in weights:
        shape = weights.shape(name)
        kind = _kind(name, shape)
        format = recipe.format(role, kind, name.removesuffix(".weight")) if kind else recipe.kept
        assert format.weight is not None
        total += format.weight.bytes_of(shape or (1,)) + _BYTES_AROUND
    return int(total)


def _kind(name: str, shape: tuple[int, ...]) -> Kind | None:
    """What kind of layer a weight belongs to, by its shape; tables of embeddings have their own name."""
    if not name.endswith(".weight") or len(shape) < 2:
        return None
    if len(shape) == 4:
        return Kind.CONV
    return Kind.EMBEDDING if name.endswith("_embedding.weight") else Kind.LINEAR
