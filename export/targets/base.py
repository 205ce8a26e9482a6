"""What a target is: it turns the ONNX master of one component into the files that one runner runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..graph.master import WeightSource
    from ..quantize.recipes import Recipe
    from ..reference.calibrate import Calibration


class Target(Protocol):
    """One row of the targets' table."""

    @property
    def name(self) -> str:
        """What `--target` takes."""

    @property
    def runner(self) -> str:
        """The kind of runner that runs the files: `ort` or `tensorrt`."""

    @property
    def dtype(self) -> str:
        """The dtype that the master should be exported in: float32 or float16."""

    @property
    def runs_here(self) -> bool:
        """True if this machine can run what it builds, so that the gate can hold it to the reference."""

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes that this target can lower."""

    def lower(
        self,
        component: str,
        model: "ir.Model",
        weights: "WeightSource",
        recipe: "Recipe",
        calibration: "Calibration | None",
        out: Path,
    ) -> list[Path]:
        """Write the component's files into the folder `out` (which exists) and return their paths.

        `model` is the master without data, and is used up. Weights are read one at a time. The same inputs give the
        same bytes. Raises `IncompatibleError` for a recipe that the target lacks and `StorageError` when writing fails.
        """
