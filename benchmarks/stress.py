"""Checkpoints that are hard to quantize, made from ordinary ones: `python -m benchmarks.stress BASE OUT --factor 30`.

`stress` writes the same network with a few channels of very different size; `heavy_tails` another network, whose
weights have the spread of the old ones and many more extremes. Tensors are rewritten one at a time.
"""

import argparse
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .outliers import KINDS, Scaling, outliers, scaled
from .weight_files import Array, described, write_weights

PARTS = ("unet", "text_encoder", "text_encoder_2")
"""Folders of a checkpoint that are rewritten; the others are copied."""
DEGREES = 3
"""Of freedom of Student's t: the smallest whole number with a finite variance."""
_CHUNK = 1 << 22


def stress(
    source: Path,
    destination: Path,
    *,
    factor: float,
    share: float = 0.01,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> Path:
    """Copy a diffusers folder, with `share` of the channels `factor` times as large wherever that can be taken back.

    The network stays the same (see `outliers`); tensors that change become float32, so that only float32's rounding
    is lost. Returns `destination`, which must not exist yet (`FileExistsError`). `ValueError`: see `outliers`.
    """
    for part, file, types in _copied(source, destination):
        shapes = {name: shape for name, (_, shape) in _all(source / part).items()}
        changes = outliers(shapes, factor=factor, share=share, kinds=kinds, seed=seed)
        announced = {
            name: (np.dtype(np.float32) if name in changes else dtype, shape) for name, (dtype, shape) in types.items()
        }
        _rewrite(source / part / file, destination / part / file, announced, partial(_stressed, changes))
    return destination


def heavy_tails(source: Path, destination: Path, *, degrees: int = DEGREES, seed: int = 0) -> Path:
    """Copy a diffusers folder with every linear weight drawn anew: Student's t, the standard deviation of the old one.

    Another network, whose pictures mean nothing. dtypes stay. Returns `destination`, which must not exist yet.
    """
    for part, file, types in _copied(source, destination):

        def drawn(name: str, old: Array) -> Array:
            if not linear(name, old.shape):
                return old
            rng = np.random.default_rng(zlib.crc32(f"{seed} {name}".encode()))
            std = float(old.astype(np.float32).std(dtype=np.float64))
            return student_t(rng, old.shape, std, degrees).astype(old.dtype)

        _rewrite(source / part / file, destination / part / file, types, drawn)
    return destination


def linear(name: str, shape: tuple[int, ...]) -> bool:
    """True for the weight of a linear layer, by its name in a state dict and its shape."""
    return len(shape) == 2 and "_embedding.weight" not in name and name.endswith(".weight")


def student_t(
    rng: np.random.Generator, shape: tuple[int, ...], std: float, degrees: int = DEGREES
) -> npt.NDArray[np.float32]:
    """Numbers of Student's t distribution with this standard deviation, float32; `degrees` above 2 (`ValueError`)."""
    if degrees < 3:
        raise ValueError(f"degrees is {degrees}; Student's t has a standard deviation from 3 on")
    values = np.empty(int(np.prod(shape)), np.float32)
    for start in range(0, values.size, _CHUNK):  # numpy draws float64
        part = values[start : start + _CHUNK]
        part[:] = rng.standard_t(degrees, part.size)
    values *= std * np.sqrt((degrees - 2) / degrees)
    return values.reshape(shape)


def _stressed(changes: Mapping[str, Sequence[Scaling]], name: str, old: Array) -> Array:
    return scaled(old, changes[name]) if name in changes else old


def _copied(source: Path, destination: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Copy all that is not rewritten; then part, file and description of each file that is."""
    rewritten = {source / part for part in PARTS}

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder) in rewritten and name.endswith(".safetensors")]

    shutil.copytree(source, destination, ignore=left_out)
    for part in PARTS:
        for path in sorted((source / part).glob("*.safetensors")):
            yield part, path.name, described(path)


def _all(folder: Path) -> dict[str, Any]:
    return {name: one for path in folder.glob("*.safetensors") for name, one in described(path).items()}


def _rewrite(old: Path, new: Path, types: Mapping[str, Any], change: Callable[[str, Array], Array]) -> None:
    from safetensors import safe_open

    with safe_open(str(old), "np") as file:
        write_weights(new, types, lambda name: change(name, file.get_tensor(name)))


def main() -> None:
    """Write the folder that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=(__doc__ or "").split(":")[0])
    parser.add_argument("source", type=Path, help="a diffusers folder")
    parser.add_argument("destination", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--factor", type=float, help="how much larger the outlier channels become")
    what.add_argument("--heavy-tails", action="store_true", help="draw linear weights from Student's t instead")
    parser.add_argument("--share", type=float, default=0.01, help="of the channels (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source, destination, seed = options.source, options.destination, options.seed
    if not (source / "unet").is_dir():
        parser.error(f"{source} has no folder unet; give a diffusers folder")
    if destination.exists():
        parser.error(f"{destination} exists; give a new folder")
    if not options.heavy_tails and not (options.factor > 0 and 0 < options.share <= 1):
        parser.error(f"factor is {options.factor} and share {options.share}; give a positive one, and one in (0, 1]")
    try:
        if options.heavy_tails:
            heavy_tails(source, destination, seed=seed)
        else:
            stress(source, destination, factor=options.factor, share=options.share, kinds=options.kinds, seed=seed)
    except BaseException:  # nothing half-written remains, Ctrl-C included
        shutil.rmtree(destination, ignore_errors=True)
        raise
    print(destination)


if __name__ == "__main__":
    main()
