"""An adapter file → the low-rank pairs of an engine's layers. Numpy and the standard library alone."""

import hashlib
import math
from pathlib import Path

import numpy as np

from ..architecture import Models
from ..errors import IncompatibleError, IntegrityError, StorageError
from ..stored.header import Header, StoredTensor, read_header
from ..stored.numbers import floats
from .hashes import data_start, short_hash
from .keys import ALPHA
from .kinds import Tensors, shapes_of
from .low_rank import MOST_RANK, Factors, Floats
from .match import MERGE, Change, match
from .pairs import Lora, Pair
from .settings import Scaling, read_scaling

MOST_BYTES = 1 << 32
"""No adapter is larger; whole checkpoints are."""
MOST_ERROR = 0.1
"""Relative error, over all layers together, beyond which differences are refused rather than approximated."""
MOST_SCALE = 1000.0


def read_lora(path: Path, models: Models) -> Lora:
    """The pairs of a `.safetensors` file for an engine of these models.

    kohya's, PEFT's, diffusers' and ComfyUI's names; LoRA (of convolutions too, with or without alpha, of any ranks),
    LoHa, LoKr and full differences. These become pairs exactly where their rank is 128 or less, and else the nearest
    pairs of that rank. Keys that no layer answers to are told in `unmatched`.

    Raises `StorageError` (no such file), `IntegrityError` (damaged, NaN, parts that do not fit each other) and
    `IncompatibleError` (of another family, of a kind that cannot be a pair, or not near enough to one).
    """
    header = open_adapter(path)
    found = match(path, header.tensors, models)
    scaling = read_scaling(path, header.metadata)
    digest, data = _read(path, header)
    pairs: dict[str, dict[str, Pair]] = {}
    factors: list[tuple[float, Factors]] = []
    for change in found.changes:
        tensors = {part: _numbers(path, change, tensor, data) for part, tensor in change.parts.items()}
        scale = _scale(path, change, tensors, scaling.get(change.place))
        factors.append((scale, change.kind.factors(tensors)))
        layer, own = change.layer, pairs.setdefault(change.layer.component, {})
        if layer.name in own:
            raise IntegrityError(f"{path} changes {layer.name} twice, under two names; save the adapter again")
        own[layer.name] = Pair(
            down=factors[-1][1].down.reshape(-1, layer.in_channels, *layer.kernel), up=factors[-1][1].up, scale=scale
        )
    error = _error(factors)
    if error > MOST_ERROR:
        raise IncompatibleError(
            f"{path} is not of low rank: pairs of rank {MOST_RANK} miss {error:.0%} of what it changes, more than "
            f"{MOST_ERROR:.0%}; {MERGE}"
        )
    return Lora(
        name=path.stem,
        pairs=pairs,
        digest=digest,
        short_hash=short_hash(header.metadata, lambda: hashlib.sha256(data[data_start(header) :]).hexdigest()),
        unmatched=found.unmatched,
        error=error,
    )


def open_adapter(path: Path) -> Header:
    """The header of an adapter file, checked whole; its tensors are not read."""
    if not path.is_file():
        raise StorageError(f"{path} does not exist or is no file; give a LoRA's .safetensors file")
    header = read_header(path)
    if not header.tensors:
        raise IntegrityError(f"{path} holds no tensors; fetch it again")
    return header


def _read(path: Path, header: Header) -> tuple[str, memoryview]:
    """sha256 of the file, and its bytes: what is hashed is what is used."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise IncompatibleError(f"{path} has {size} bytes, more than any LoRA; give a LoRA's .safetensors file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if any(tensor.offset + tensor.nbytes > len(data) for tensor in header.tensors.values()):
        raise IntegrityError(f"{path} became shorter while it was read; fetch it again")
    return hashlib.sha256(data).hexdigest(), memoryview(data)


def _numbers(path: Path, change: Change, stored: StoredTensor, data: memoryview) -> Floats:
    numbers = floats(stored, data[stored.offset : stored.offset + stored.nbytes])
    if not np.isfinite(numbers).all():
        raise IntegrityError(f"{path} holds NaN or Inf for {change.layer.name}; fetch it again, or ask its author")
    return numbers


def _scale(path: Path, change: Change, tensors: Tensors, scaling: Scaling | None) -> float:
    """alpha / rank; 1 where nothing says alpha."""
    rank, name = change.kind.rank(shapes_of(change.parts)), change.layer.name
    if not rank:
        return 1.0
    if ALPHA not in tensors:
        scale = 1.0 if scaling is None else scaling.scale(change.module, rank)
    elif tensors[ALPHA].size == 1:
        scale = float(tensors[ALPHA].reshape(())) / rank
    else:
        raise IntegrityError(f"{path}: alpha of {name} has {tensors[ALPHA].size} numbers, not one; save it again")
    if not 0 < scale <= MOST_SCALE:
        raise IntegrityError(
            f"{path}: alpha of {name} scales it by {scale:g}; it must be above 0 and at most {MOST_SCALE:g}"
        )
    return scale


def _error(factors: list[tuple[float, Factors]]) -> float:
    """What approximations leave out, relative to all that the file changes (Frobenius norms)."""
    left_out = sum((scale * each.error) ** 2 for scale, each in factors)
    return math.sqrt(left_out / sum((scale * each.size()) ** 2 for scale, each in factors)) if left_out else 0.0
