"""By what an engine's layers differ from those of its checkpoint, so that low-rank pairs can be made to fit.

A build smooths channels: what a layer reads is divided by factors that its weight is multiplied by, and what it writes
may be multiplied by others that a later layer divides by. The whole computes the same, but a pair beside such a layer
must take its inputs back and give its outputs forth: `down` is multiplied by the first, `up` by the second.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import IntegrityError
from .pairs import Floats

FACTORS_FILE = "openings.npz"


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """Of one layer; None where its channels are the checkpoint's own."""

    inputs: Floats | None = None
    """`[in]`: what the weight's columns were multiplied by, and its inputs divided."""
    outputs: Floats | None = None
    """`[out]`: what its outputs were multiplied by."""


def encode_factors(factors: Mapping[str, Factors]) -> bytes:
    """The bytes of the file, by layer; equal factors give equal bytes."""
    named = {f"in|{layer}": one.inputs for layer, one in factors.items() if one.inputs is not None}
    named |= {f"out|{layer}": one.outputs for layer, one in factors.items() if one.outputs is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **named)  # type: ignore[arg-type]  # numpy's stub takes any name for its one flag
    return buffer.getvalue()


def read_factors(path: Path) -> dict[str, Factors]:
    """The factors of a file whose hash has matched, by layer. Raises `IntegrityError`."""
    sides: dict[str, dict[str, Floats]] = {"in": {}, "out": {}}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                side, _, layer = key.partition("|")
                array = arrays[key]
                if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
                    raise ValueError(f"{key} is no row of finite float32 numbers")
                sides[side][layer] = array
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{path} has no factors of layers ({error}); build the engine again") from error
    return {
        layer: Factors(inputs=sides["in"].get(layer), outputs=sides["out"].get(layer))
        for layer in sorted({*sides["in"], *sides["out"]})
    }
