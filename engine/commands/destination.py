"""Where the pictures of `generate` go: names that replace nothing, tried before the work begins."""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError, StorageError
from ..picture.files import SUFFIXES, cannot_write, format_of, write_picture

DEFAULT = "out.png"
_NUMBERED = re.compile(rf"(\d{{1,9}})(?:{'|'.join(map(re.escape, SUFFIXES))})", re.IGNORECASE)
_BLOCK = bytes(1 << 20)


class Destination:
    """One name a picture. `NAME.png`, or `NAME-1.png`, `NAME-2.png`, … for several; in a folder `00001.png`, ….

    Without `--overwrite` no file is ever replaced: a name that is taken by the time a picture is done is passed over.
    """

    def __init__(self, name: Callable[[int], Path], *, first: int = 1, replace: bool = False) -> None:
        """`name` makes a path of a number, which begins at `first`."""
        self._name = name
        self._next = first
        self._replace = replace

    @classmethod
    def of(cls, output: str | None, images: int, *, overwrite: bool) -> "Destination":
        """What `-o`, `-n` and `--overwrite` mean. Raises `RequestError` and `StorageError`, before minutes of work."""
        if output and (output.endswith(("/", os.sep)) or _is_folder(Path(output))):
            return cls._folder(Path(output))
        path = Path(DEFAULT if output is None else output)
        format_of(path)
        if not path.parent.is_dir():
            raise StorageError(f"the folder {path.parent} does not exist; create it or choose another one")

        def name(number: int) -> Path:
            return path if number == images == 1 else path.with_stem(f"{path.stem}-{number}")

        for planned in map(name, range(1, images + 1)):
            if not _taken(planned):
                continue
            if planned.is_dir() and not planned.is_symlink():
                raise StorageError(f"{planned} is a folder; give another name")
            if output is not None and not overwrite:
                raise StorageError(
                    f"{planned} exists; add --overwrite to replace it, or give -o a folder (with a / at the end) for "
                    "numbered pictures"
                )
        return cls(name, replace=overwrite)

    @classmethod
    def _folder(cls, folder: Path) -> "Destination":
        try:
            folder.mkdir(exist_ok=True)
            numbers = [int(match[1]) for entry in os.scandir(folder) if (match := _NUMBERED.fullmatch(entry.name))]
        except OSError as error:
            raise cannot_write(folder, error) from error
        return cls(lambda number: folder / f"{number:05}.png", first=max(numbers, default=0) + 1)

    def try_out(self, size: int) -> None:
        """Write `size` bytes beside the next picture, and remove them. Raises `StorageError`."""
        path = self._name(self._next)
        trial = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            _taken(path)  # a name that is too long
            try:
                with trial.open("xb") as file:
                    for start in range(0, size, len(_BLOCK)):
                        file.write(_BLOCK[: size - start])
            finally:
                trial.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, picture: Any, settings: Mapping[str, str], quality: int | None) -> Path:
        """Write the next picture; returns where it is. Raises what `write_picture` raises."""
        while True:
            path = self._name(self._next)
            self._next += 1
            if self._replace or not _taken(path):
                try:
                    write_picture(path, picture, settings, quality=quality, replace=self._replace)
                except FileExistsError:
                    continue  # by another program, just now
                return path

    def check_quality(self, quality: int | None) -> None:
        """Raise `RequestError` for a `--quality` that is out of range, or of a format that has none."""
        if quality is None:
            return
        if not 1 <= quality <= 100:
            raise RequestError(f"--quality is {quality}; it must be 1 to 100")
        if format_of(self._name(self._next)).lossless:
            raise RequestError("--quality is for .jpg and .webp; PNG keeps every pixel as it is")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _taken(path: Path) -> bool:
    """Whether something has this name, be it a link to nowhere."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True
