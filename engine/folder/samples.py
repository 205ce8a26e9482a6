"""Reference samples: what the unquantized network makes of some real inputs, carried by the engine.

`<component>/sample.npz` holds one call, `in|<name>` and `out|<name>` as float32 (token ids as int64). A U-Net's keys
and values are not stored twice: what its own file lacks are the conditioner's outputs.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from ..errors import IntegrityError
from ..specs import Arrays, Role
from .manifest import Manifest, checked_path

SAMPLE_FILE = "sample.npz"
Sample = tuple[Arrays, Arrays]
"""Inputs and outputs of one call, by name."""


def encode_sample(inputs: Arrays, outputs: Arrays) -> bytes:
    """The bytes of the file; equal arrays give equal bytes."""
    named = {f"in|{name}": array for name, array in inputs.items()} | {f"out|{n}": a for n, a in outputs.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **named)  # type: ignore[arg-type]  # numpy's stub takes any name for its one flag
    return buffer.getvalue()


def read_sample(folder: Path, manifest: Manifest, component: str) -> Sample | None:
    """The sample of a component, None if the engine carries none. Raises `IntegrityError`."""
    entry = manifest.components[component]
    if entry.sample is None:
        return None
    inputs, outputs = _read(checked_path(folder, entry.sample))
    lacking = {tensor.name for tensor in entry.spec.inputs} - set(inputs)
    if lacking and entry.spec.role is Role.UNET:
        conditioner = read_sample(folder, manifest, component.replace("/unet", "/conditioner"))
        shared = conditioner[1] if conditioner is not None else {}
        inputs |= {name: shared[name] for name in lacking if name in shared}
    return inputs, outputs


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    sides: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                side, _, name = key.partition("|")
                sides[side][name] = arrays[key]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{path} is no sample of an engine ({error}); build the engine again") from error
    return sides["in"], sides["out"]
