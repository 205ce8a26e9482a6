"""Weights with low-rank changes added to them as they are read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...engine.adapters.pairs import Pair
from .weights import Weights

if TYPE_CHECKING:
    import torch

Added = Mapping[str, Sequence[tuple[Pair, float]]]
"""Tensor → pairs that are added to it, each with how much it counts."""


class MergedWeights(Weights):
    """Another's tensors, where a name is in `added` as float32 with `weight * scale * up @ down` for each pair.

    Its digest is that of what lies on disk: whoever merges says what becomes of it.
    """

    def __init__(self, own: Weights, added: Added) -> None:
        super().__init__({name: own.stored(name) for name in own})
        self._added = added

    def dtype(self, name: str) -> str:
        """See `Weights`."""
        return "float32" if name in self._added else super().dtype(name)

    def tensor(self, name: str) -> "torch.Tensor":
        """See `Weights`; the sum is made anew each time."""
        own = super().tensor(name)
        if name not in self._added:
            return own
        import torch

        whole = own.to(torch.float32)
        for pair, weight in self._added[name]:
            down = torch.from_numpy(pair.down.reshape(pair.rank, -1))
            change = torch.from_numpy(pair.up.reshape(-1, pair.rank)) @ down
            whole += change.reshape(whole.shape).mul_(weight * pair.scale)
        return whole

    def only(self, names: Iterable[str]) -> Weights:
        """See `Weights`."""
        return MergedWeights(super().only(names), self._added)
