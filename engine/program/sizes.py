"""The sizes of a call, by their symbols.

`batch` · `tokens` of a prompt · `texts` = batch · tokens · `steps` of a sampler · `evaluations` = steps · batch · and
for each level L of a network, where level 0 is the latents', level 1 half of it (rounded up), level -1 twice:
`height<L>`, `width<L>`, `pixels<L>` = height · width, `rows<L>` = batch · pixels. `ranks<N>` = N times the rank of
low-rank pairs (`slots`).
"""

import re
from dataclasses import dataclass

Size = int | str

_PLAIN = frozenset({"batch", "tokens", "texts", "steps", "evaluations"})
_SYMBOL = re.compile(r"(height|width|pixels|rows)(-?\d+)")
_RANKS = re.compile(r"ranks([1-9]\d?)")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The numbers of one call."""

    batch: int
    height: int
    width: int
    tokens: int = 77
    steps: int = 1
    rank: int = 0

    def __getitem__(self, symbol: Size) -> int:
        """The length that a symbol, or a number, stands for. Raises `KeyError` for one that there is not."""
        if isinstance(symbol, int):
            return symbol
        plain = {"batch": self.batch, "tokens": self.tokens, "steps": self.steps}
        plain |= {"texts": self.batch * self.tokens, "evaluations": self.steps * self.batch}
        if symbol in plain:
            return plain[symbol]
        if (ranks := _RANKS.fullmatch(symbol)) is not None:
            return int(ranks[1]) * self.rank
        if (match := _SYMBOL.fullmatch(symbol)) is None:
            raise KeyError(symbol)
        level = int(match[2])
        height, width = at_level(self.height, level), at_level(self.width, level)
        pixels = height * width
        return {"height": height, "width": width, "pixels": pixels, "rows": self.batch * pixels}[match[1]]


def is_symbol(text: str) -> bool:
    """Whether this is a size and not, say, a dtype."""
    return text in _PLAIN or any(known.fullmatch(text) for known in (_SYMBOL, _RANKS))


def is_rank(text: str) -> bool:
    """Whether this is a number of ranks."""
    return _RANKS.fullmatch(text) is not None


def at_level(length: int, level: int) -> int:
    """A length `level` halvings down, each rounded up; doublings where the level is negative."""
    return -(-length >> level) if level >= 0 else length << -level
