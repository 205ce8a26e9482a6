"""What was found out about a graph and costs seconds, for the next time that one like it is lowered.

A component is lowered again with more bits where it missed its goal, and a process may build several engines of one
family.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """The results that were asked for last, by what they follow from."""

    def __init__(self, most: int) -> None:
        """`most`: results that are kept."""
        self._most = most
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave for this key; it is called where nothing is kept."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
