"""`generate --preview FILE`: what the picture looks like so far, in one file that is written anew every few steps."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..picture.files import write_picture
from ..pipeline import Pipeline
from ..vae import to_uint8
from .base import emit

EVERY = 5


def add_preview(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--preview", type=Path, metavar="FILE",
        help="write here what the picture looks like so far, a pixel for each latent (an eighth of the size)",
    )  # fmt: skip
    parser.add_argument("--preview-every", type=int, metavar="STEPS", help=f"how often (default: every {EVERY} steps)")


class PreviewFile:
    """A callback of a call that writes the file; each time it is whole, whoever reads it meanwhile."""

    def __init__(self, path: Path, every: int | None, *, json: bool) -> None:
        """Check what can be checked. `json`: tell of each file as an event."""
        self._path, self._json = path, json
        self._every = EVERY if every is None else every
        if self._every < 1:
            raise RequestError(f"--preview-every is {every}; give a whole number from 1")

    @classmethod
    def of(cls, args: argparse.Namespace, pipe: Pipeline) -> dict[str, Any]:
        """The option of a call that the flags stand for, if they do. Raises `RequestError` before anything is made."""
        if args.preview is None:
            if args.preview_every is not None:
                raise RequestError("--preview-every says how often, but not where; give --preview FILE too")
            return {}
        if args.output is not None and args.preview.absolute() == Path(args.output).absolute():
            raise RequestError(f"--preview and --output are both {args.preview}; give the preview a name of its own")
        pipe.preview.prepare()
        found = cls(args.preview, args.preview_every, json=args.json)
        found.write(np.zeros((8, 8, 3), np.float32))  # so that a path that cannot be written is told now
        return {"callback_on_step_end": found}

    def __call__(self, pipe: Pipeline, index: int, timestep: float, now: dict[str, Any]) -> None:
        """After an evaluation."""
        if (index + 1) % self._every == 0:
            self.write(pipe.preview(now["denoised"], output_type="np")[0])
            if self._json:
                emit("preview", path=str(self._path), step=index + 1)

    def write(self, picture: np.ndarray) -> None:
        """Replace the file by this picture, (h, w, 3) in [0, 1]."""
        write_picture(self._path, to_uint8(picture), None)
