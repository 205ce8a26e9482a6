"""A component's ONNX file for ONNX Runtime, weights beside it as external data."""

from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.errors import StorageError
from ....engine.runners.ort import DATA_FILE, MODEL_FILE

if TYPE_CHECKING:
    import onnx_ir as ir

# Weights start on page boundaries, so that the runtime maps each of them without a copy.
ALIGNMENT = 4096
ALIGN_FROM_BYTES = 1 << 16


def save(model: "ir.Model", out: Path) -> None:
    """Write `model.onnx` and `model.onnx.data` into `out`, one weight in memory at a time. Raises `StorageError`."""
    import onnx_ir as ir

    path = out / MODEL_FILE
    try:
        ir.save(model, path, external_data=DATA_FILE, alignment=ALIGNMENT, align_threshold=ALIGN_FROM_BYTES)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
