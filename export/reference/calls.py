"""The long calls of the picture that is being made, kept one by one: a machine that is taken away loses one step."""

from collections.abc import Callable

from ...engine.specs import Arrays
from ..quantize.calibration import Calibration
from .store import KeptCall, ReferenceStore


class Calls:
    """Calls of one picture in their order: those that an earlier build made are played back, the others kept."""

    def __init__(self, store: ReferenceStore, index: int, advance: Callable[..., None]) -> None:
        """`index`: the picture's; `advance` hears of each call that was made."""
        self._store = store
        self._index = index
        self._advance = advance
        self._number = 0

    def recalled(self, component: str) -> KeptCall | None:
        """The next call, if it is kept."""
        found = self._store.read_call(self._index, self._number)
        if found is None or found.component != component:
            return None
        self._number += 1
        return found

    def kept(self, component: str, outputs: Arrays, calibration: Calibration) -> None:
        """Keep a call that was made, and what its layers showed in it."""
        made = KeptCall(component=component, outputs=outputs, calibration=calibration)
        self._store.write_call(self._index, self._number, made)
        self._number += 1
        self._advance(detail=component)
