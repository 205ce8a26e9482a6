"""safetensors files written one tensor at a time: a whole network is never in memory."""

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32"}


def write_weights(
    path: Path, tensors: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]], make: Callable[[str], Array]
) -> None:
    """Write a file of `tensors` (name → dtype and shape); `make` is asked for each by name, and forgets it.

    Raises `ValueError` where it gives another dtype or shape, `KeyError` for a dtype that is not written here.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in sorted(tensors.items()):
        size = np.dtype(dtype).itemsize * math.prod(shape)
        header[name] = {"dtype": _NAMES[np.dtype(dtype).name], "shape": list(shape)}
        header[name]["data_offsets"] = [offset, offset + size]
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (dtype, shape) in sorted(tensors.items()):
            made = make(name)
            if made.dtype != dtype or made.shape != shape:
                raise ValueError(f"{name} is {made.dtype} {made.shape}; {np.dtype(dtype)} {shape} was announced")
            file.write(np.ascontiguousarray(made).tobytes())


def described(path: Path) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Name → dtype and shape of every tensor of a file that `write_weights` could have written."""
    from safetensors import safe_open

    types = {short: np.dtype(name) for name, short in _NAMES.items()}
    with safe_open(str(path), "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return {name: (types[part.get_dtype()], tuple(part.get_shape())) for name, part in slices.items()}
