"""What runners of components on the first GPU have in common, whatever computes there."""

from collections.abc import Mapping
from pathlib import Path

from ..errors import IncompatibleError
from ..folder.manifest import ComponentEntry
from ..folder.variants import file_for
from .base import Footprint, Range, Sizes
from .device import CudaDevice


class GpuRunner:
    """A component of an engine folder on a GPU. Both sides of guidance go into one call of two rows."""

    rows = 2

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: CudaDevice) -> None:
        self.name = name
        self.spec = entry.spec
        self.device = device
        self._folder = folder
        self._entry = entry

    @property
    def ranges(self) -> Mapping[str, Range]:
        """What the component was compiled for, as its build has noted it."""
        return {symbol: (least, most) for symbol, (least, most) in self._entry.ranges.items()}

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`. The working memory is the device's one scratch.

        Weights are those of the file for the card at hand; on a machine without one, of the largest.
        """
        entry = self._entry
        here = file_for(entry, self.device.architecture) if entry.architectures else None
        largest = max((file.size for file in entry.files if file.name in entry.architectures), default=0)
        weights = here.size if here is not None else largest or entry.weight_bytes
        working = entry.activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        return Footprint(pool="device", weights=weights, working=working, scratch=True)

    def leave_behind(self) -> None:
        """Refuse: a GPU's driver does not survive a fork. Raises `IncompatibleError`."""
        raise IncompatibleError(
            f"{self.name} was loaded before this process was forked, and a GPU cannot be used across a fork; "
            "load the pipeline in the child, or fork before the first picture"
        )
