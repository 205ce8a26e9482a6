"""Captured graphs of a component: one for each set of sizes and addresses, of which the last few are kept."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from .cuda_driver import CudaDriver

MOST = 16
"""As many as one evaluation goes through: one for each prompt of a call, two where its sides run apart."""


class Graphs:
    """By what they depend on: as long as a key is the same, its graph does the same."""

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._made: OrderedDict[Hashable, int] = OrderedDict()

    def get(self, key: Hashable) -> int | None:
        """The graph of `key`, if it is there."""
        if key in self._made:
            self._made.move_to_end(key)
        return self._made.get(key)

    def add(self, key: Hashable, work: Callable[[], None]) -> int:
        """Capture what `work` launches as the graph of `key`. Nothing may be running."""
        while len(self._made) >= MOST:
            self._driver.drop_graph(self._made.popitem(last=False)[1])
        graph = self._made[key] = self._driver.capture(work)
        return graph

    def release(self) -> None:
        """Give them all back; none may be running."""
        while self._made:
            self._driver.drop_graph(self._made.popitem()[1])
