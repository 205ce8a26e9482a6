"""The long calls of the picture that is being made, kept one by one: a machine that is taken away loses one step."""

from collections.abc import Callable, Mapping

from ...engine.specs import Arrays
from .calibrate import Calibration, Extremes
from .store import KeptCall, ReferenceStore


class Calls:
    """Calls of one picture in their order: those that an earlier build made are played back, the others kept."""

    def __init__(
        self,
        store: ReferenceStore,
        index: int,
        ranges: Mapping[str, dict[str, Extremes]],
        advance: Callable[..., None],
    ) -> None:
        """`index`: the picture's; `ranges` are watched while a call is made; `advance` hears of each that was made."""
        self._store = store
        self._index = index
        self._ranges = ranges
        self._advance = advance
        self._number = 0

    def recalled(self, component: str) -> Arrays | None:
        """The outputs of the next call, if it is kept; the ranges are then what they were when it was made."""
        found = self._store.read_call(self._index, self._number)
        if found is None or found.component != component:
            return None
        self._ranges[component].update(found.calibration.ranges)
        self._number += 1
        return found.outputs

    def kept(self, component: str, outputs: Arrays) -> Arrays:
        """Keep the outputs of a call that was made."""
        seen = Calibration(ranges=dict(self._ranges[component]))
        self._store.write_call(
            self._index, self._number, KeptCall(component=component, outputs=outputs, calibration=seen)
        )
        self._number += 1
        self._advance(detail=component)
        return outputs
