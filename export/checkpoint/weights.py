"""Weights of one component, read from disk one tensor at a time."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.errors import IntegrityError, StorageError
from ...engine.stored.header import CONVERT, PICKLE_SUFFIXES, StoredTensor, read_header
from .configuration import shown
from .finite import FiniteCheck

if TYPE_CHECKING:
    import torch

HASH_BLOCK = 1 << 22


class Weights:
    """Named tensors on disk, under diffusers' and transformers' state-dict names.

    A tensor is read into its own memory when it is asked for, and nothing is kept. (Not a view of a memory map: pages
    of a map that were once touched count as resident, and a map of a file that is cut meanwhile kills the process.)
    """

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        """Takes where each tensor lies; see `open_weights` for folders, `single_file` for original checkpoints."""
        self._tensors = dict(sorted(tensors.items()))
        self._digest: str | None = None

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.stored(name).shape

    def dtype(self, name: str) -> str:
        """The element type by the name that torch gives it: `getattr(torch, weights.dtype(name))`."""
        return self.stored(name).dtype

    def nbytes(self, name: str) -> int:
        """The tensor's size in bytes."""
        return self.stored(name).nbytes

    def tensor(self, name: str) -> "torch.Tensor":
        """Reads one tensor into new memory; `IntegrityError` when the file is shorter than it was."""
        import torch

        stored = self.stored(name)
        shape = stored.shape[::-1] if stored.transposed else stored.shape
        result = torch.empty(shape, dtype=getattr(torch, stored.dtype))
        if result.numel():
            _fill(result.view(-1).view(torch.uint8).numpy().data, stored, 0)
        return result.T.contiguous() if stored.transposed else result

    @property
    def bytes(self) -> int:
        """The size of all tensors."""
        return sum(stored.nbytes for stored in self._tensors.values())

    def stored(self, name: str) -> StoredTensor:
        """Where a tensor lies; `IntegrityError` when the checkpoint lacks it."""
        if name not in self._tensors:
            raise IntegrityError(f"The checkpoint lacks the tensor {name} ({self._where()}); fetch it again.")
        return self._tensors[name]

    def only(self, names: Iterable[str]) -> "Weights":
        """The tensors of these names; `IntegrityError` names the ones that are missing."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self._tensors]
        if missing:
            raise IntegrityError(
                f"The checkpoint lacks {len(missing)} tensors ({self._where()}), among them {', '.join(missing[:3])}; "
                "fetch it again, or give the configuration that belongs to it."
            )
        return Weights({name: self._tensors[name] for name in wanted})

    def files(self) -> list[Path]:
        """The files that hold the tensors, sorted."""
        return sorted({stored.path for stored in self._tensors.values()})

    def digest(self, advance: Callable[[int], object] | None = None) -> str:
        """SHA-256 over names, types, shapes and values: the same for every file form of the same weights.

        `IntegrityError` for NaN and Inf: every value is seen here once.

        `advance` is told the bytes of each tensor when it is hashed.
        """
        if self._digest is None:
            whole = hashlib.sha256()
            with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
                values = pool.map(self._hash, self._tensors)
                for (name, stored), value in zip(self._tensors.items(), values, strict=True):
                    whole.update(json.dumps([name, stored.dtype, stored.shape, value]).encode())
                    if advance is not None:
                        advance(stored.nbytes)
            self._digest = whole.hexdigest()
        return self._digest

    def _hash(self, name: str) -> str:
        stored = self._tensors[name]
        value = hashlib.sha256()
        check = FiniteCheck(stored.dtype, min(HASH_BLOCK, stored.nbytes))
        for start, block in self._blocks(name):
            bad = check.first_bad(block)
            if bad is not None:
                index = start // stored.itemsize + bad
                raise IntegrityError(
                    f"{stored.path}: value {index} of {name} {stored.shape} is NaN or Inf, of which no picture can be "
                    "made; fetch the checkpoint again, or ask its author"
                )
            value.update(block)
        return value.hexdigest()

    def _blocks(self, name: str) -> Iterator[tuple[int, memoryview]]:
        """The tensor's bytes a block at a time, each with its place; the next one takes its memory."""
        stored = self._tensors[name]
        if stored.transposed:
            import torch

            whole = self.tensor(name).view(-1).view(torch.uint8).numpy().data
            yield from ((start, whole[start : start + HASH_BLOCK]) for start in range(0, stored.nbytes, HASH_BLOCK))
            return
        buffer = memoryview(bytearray(min(HASH_BLOCK, stored.nbytes)))
        for start in range(0, stored.nbytes, HASH_BLOCK):
            block = buffer[: stored.nbytes - start]
            _fill(block, stored, start)
            yield start, block

    def _where(self) -> str:
        return ", ".join(str(path) for path in self.files()) or "no files"


def _fill(buffer: memoryview, stored: StoredTensor, start: int) -> None:
    """Fills `buffer` with the tensor's bytes from `start` on."""
    try:
        with stored.path.open("rb", buffering=0) as file:
            file.seek(stored.offset + start)
            filled = 0
            while filled < len(buffer):
                count = file.readinto(buffer[filled:])
                if not count:
                    raise IntegrityError(f"{stored.path} became shorter while it was read; fetch it again.")
                filled += count
    except OSError as error:
        raise StorageError(f"{stored.path} cannot be read: {error.strerror}.") from error


def open_weights(folder: Path, stem: str) -> Weights:
    """The weights of a diffusers component folder: `stem`.safetensors, in shards, or as fp16/bf16 variant.

    Looked for in this order: the plain file, its shards, then the variants. `IntegrityError` when there is none, when
    there are only pickles, or when a shard's name leads out of the folder.
    """
    for variant in ("", ".fp16", ".bf16"):
        path = folder / f"{stem}{variant}.safetensors"
        if path.is_file():
            return Weights(read_header(path).tensors)
        for index in (f"{stem}.safetensors.index{variant}.json", f"{stem}{variant}.safetensors.index.json"):
            if (folder / index).is_file():
                return Weights(_read_shards(folder / index))
    pickles = sorted(p.name for p in folder.glob(f"{stem}*") if p.suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        raise IntegrityError(
            f"{folder} holds only {pickles[0]}, a pickle, which can run code when it is loaded and is refused; "
            f"{CONVERT}."
        )
    raise IntegrityError(f"{folder / stem}.safetensors is missing; fetch the checkpoint again.")


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    """The tensors of the shards that an index file lists."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        places = {name: str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{index} is not an index of safetensors shards; fetch it again.") from error
    for file in places.values():
        # A name from the file must not reach other folders. Links inside the folder are the hub cache's own way.
        if Path(file).name != file or not file.endswith(".safetensors") or "\\" in file:
            raise IntegrityError(
                f"{index} names the shard {shown(file)}; only .safetensors files beside it are allowed."
            )
    shards = {file: read_header(index.parent / file).tensors for file in sorted(set(places.values()))}
    missing = [name for name, file in places.items() if name not in shards[file]]
    if missing:
        raise IntegrityError(
            f"{index.parent / places[missing[0]]} lacks the tensor {missing[0][:200]}; fetch it again."
        )
    return {name: shards[file][name] for name, file in places.items()}
