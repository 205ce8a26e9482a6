"""Opens an upscaler's `.safetensors` file: ESRGAN's network under any of its names, or Real-ESRGAN's compact one.

Such files have no configuration: everything follows from the names and the shapes of their tensors.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import isqrt
from pathlib import Path

from ...engine.bounds import outside
from ...engine.errors import IncompatibleError, IntegrityError, StorageError
from ...engine.stored.header import PICKLE_SUFFIXES, SUFFIXES, read_header
from ...engine.upscaler import BOUNDS, COLOURS, UpscalerArchitecture, UpscalerKind
from .upscaler_names import ALLOWED, Tensors, renamed, without_prefix
from .weights import Weights

CONVERT = (
    "where you trust it, convert it with the package spandrel: `safetensors.torch.save_file(spandrel.ModelLoader()"
    ".load_from_file(PTH).model.state_dict(), FILE)`"
)
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_BLOCK = re.compile(r"body\.(\d{1,4})\.rdb1\..*")
_UP = re.compile(r"conv_up(\d)\.weight")
_LAYER = re.compile(r"body\.(\d{1,4})\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class UpscalerCheckpoint:
    """One on disk."""

    source: Path
    architecture: UpscalerArchitecture
    weights: Weights
    """Under our names."""


def open_upscaler(source: str | Path) -> UpscalerCheckpoint:
    """Open a file; no weight is read.

    `StorageError` where there is none, `IntegrityError` for a pickle and for damaged and incomplete files,
    `IncompatibleError` for another network and for one that is not of colours.
    """
    path = Path(source)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise IntegrityError(f"{path} is a pickle, which can run code when it is loaded, and is refused; {CONVERT}")
    if not path.is_file():
        raise StorageError(f"{source} does not exist or is no file; {ALLOWED}")
    if path.suffix.lower() not in SUFFIXES:
        raise IncompatibleError(f"{path} is no .safetensors file; {ALLOWED}")
    tensors = without_prefix(read_header(path).tensors)
    for name, stored in tensors.items():
        if stored.dtype not in _FLOATS:
            raise IncompatibleError(f"{path}: {name[:100]} is of {stored.dtype}; give it in {' or '.join(_FLOATS)}")
    compact = {"body.0.weight", "body.1.weight"} <= tensors.keys()
    named = dict(tensors) if compact else renamed(tensors, path)
    architecture = _compact(named, path) if compact else _esrgan(named, path)
    if fault := next(chain(outside(architecture, BOUNDS), architecture.faults()), None):
        raise IncompatibleError(f"{path}: {fault}; {ALLOWED}")
    return UpscalerCheckpoint(source=path, architecture=architecture, weights=Weights(named))


def _esrgan(named: Tensors, path: Path) -> UpscalerArchitecture:
    first, last = _kernel(named, "conv_first", path), _kernel(named, "conv_last", path)
    unshuffle = isqrt(first[1] // COLOURS)
    if last[0] != COLOURS or first[1] != COLOURS * unshuffle**2:
        raise _not_of_colours(path, first[1], last[0])
    return UpscalerArchitecture(
        kind=UpscalerKind.ESRGAN,
        scale=1 << max(_numbers(_UP, named), default=0),
        width=first[0],
        blocks=1 + max(_numbers(_BLOCK, named), default=-1),
        growth=_kernel(named, "body.0.rdb1.conv1", path)[0],
        unshuffle=unshuffle,
        plus=any(name.endswith(".conv1x1.weight") for name in named),
    )


def _compact(named: Tensors, path: Path) -> UpscalerArchitecture:
    layers = [int(found[1]) if (found := _LAYER.fullmatch(name)) else None for name in named]
    if None in layers:
        raise IncompatibleError(f"{path} has tensors that Real-ESRGAN's compact network has not; {ALLOWED}")
    end = max(number for number in layers if number is not None)
    first, last = _kernel(named, "body.0", path), _kernel(named, f"body.{end}", path)
    scale = isqrt(last[0] // COLOURS)
    if first[1] != COLOURS or last[0] != COLOURS * scale**2:
        raise _not_of_colours(path, first[1], last[0] / max(scale, 1) ** 2)
    return UpscalerArchitecture(kind=UpscalerKind.COMPACT, scale=scale, width=first[0], blocks=(end - 2) // 2)


def _kernel(named: Tensors, layer: str, path: Path) -> tuple[int, ...]:
    """(outputs, inputs, height, width) of a convolution."""
    stored = named.get(f"{layer}.weight")
    if stored is None or len(stored.shape) != 4:
        raise IntegrityError(f"{path} lacks {layer}.weight, or it is no convolution's; fetch the file again")
    return stored.shape


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> list[int]:
    return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]


def _not_of_colours(path: Path, reads: int, gives: float) -> IncompatibleError:
    return IncompatibleError(
        f"{path} reads {reads} channels and gives {gives:g}; take an upscaler of pictures in colours, of three channels"
    )
