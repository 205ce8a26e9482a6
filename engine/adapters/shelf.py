"""LoRA files that were read, so that the next picture need not read them again."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..architecture import Models
from ..errors import RequestError, StorageError
from .pairs import Lora

Read = Callable[[Path, Models], Lora]
KEPT = 8
"""Files; a picture that needs more reads some again."""
_Identity = tuple[str, int, int]


def read_file(path: Path, models: Models) -> Lora:
    """See `adapters.read.read_lora`, which is imported when the first file is."""
    from .read import read_lora

    return read_lora(path, models)


class Shelf:
    """The files that were read last; safe to share between threads."""

    def __init__(self, models: Models, read: Read = read_file) -> None:
        self._models, self._read = models, read
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Identity, Lora] = OrderedDict()

    def get(self, file: str) -> Lora:
        """The LoRA in a file, or that of a file which is here under its name; one that was changed is read again.

        Raises `RequestError` where there is neither, and what reading it raises.
        """
        path = Path(file)
        try:
            if not path.is_file():
                return self._named(file)
            status = path.stat()
        except (OSError, ValueError) as error:
            raise StorageError(f"LoRA {file[:200]!r} cannot be read: {error}") from error
        identity = (str(path.resolve()), status.st_mtime_ns, status.st_size)
        with self._lock:
            if identity not in self._kept:
                self._kept[identity] = self._read(path, self._models)
            self._kept.move_to_end(identity)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[identity]

    def bytes(self) -> int:
        """What they take."""
        with self._lock:
            return sum(size_of(lora) for lora in self._kept.values())

    def _named(self, name: str) -> Lora:
        with self._lock:
            found = [lora for lora in self._kept.values() if lora.name == name]
        if not found:
            raise RequestError(
                f"LoRA {name[:200]!r} is no file, and none of that name was read before; give the path of a "
                ".safetensors file"
            )
        return found[-1]


def size_of(lora: Lora) -> int:
    """Bytes of all its matrices."""
    return sum(pair.down.nbytes + pair.up.nbytes for pairs in lora.pairs.values() for pair in pairs.values())
