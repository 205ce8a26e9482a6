"""An upscaler by itself: pictures in, larger pictures out.

Upscaler.load("my-upscaler")(Image.open("photo.jpg"), scale=2).save("larger.png")
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..ending import Ended, Ending
from ..errors import RequestError
from ..memory.enlarging import enlarging_bytes
from ..pictures_in.values import picture_of
from ..progress import Progress, Silent, track
from ..request.limits import number, short_text, show
from ..runners.base import Loaded
from ..vae import to_uint8
from .enlarge import enlarged, tiles_of
from .opened import OpenedUpscaler, open_upscaler

LARGEST = 1 << 28
"""Pixels of a picture that comes out, or that the network makes on the way."""
OUTPUT_TYPES = ("pil", "np")


class Upscaler:
    """A network that makes pictures larger, ready for calls, one at a time."""

    def __init__(self, opened: OpenedUpscaler) -> None:
        """See `load`."""
        self._opened = opened
        self._one = threading.Lock()

    @classmethod
    def load(cls, path: str | Path, *, threads: int | None = None) -> Self:
        """Open a folder that `pocketxl build-upscaler` made; weights are loaded for each picture.

        Raises `IncompatibleError`, `IntegrityError`.
        """
        return cls(open_upscaler(path, threads=threads))

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self._opened.known.name

    @property
    def hash(self) -> str:
        """What tells it apart in pictures' settings."""
        return self._opened.known.hash

    @property
    def factor(self) -> int:
        """How much larger it makes a picture, along each side."""
        return self._opened.known.architecture.factor

    def size(self, height: int, width: int, scale: float | None = None) -> tuple[int, int]:
        """(height, width) of what becomes of such a picture; `scale`: 1 to 16, None: the factor.

        Raises `RequestError`.
        """
        times = float(self.factor) if scale is None else number("scale", scale)
        return max(1, round(height * times)), max(1, round(width * times))

    def plan(self, height: int, width: int, scale: float | None = None) -> int:
        """Predicted peak of the process's memory in bytes for a picture of that height and width."""
        known = self._opened.known
        return enlarging_bytes(self._opened.runner, known.architecture, height, width, self.size(height, width, scale))

    def __call__(
        self,
        picture: Any,
        *,
        scale: float | None = None,
        output_type: str = "pil",
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Any:
        """A picture (PIL's, or an array (H, W, 3) as `image` of a call) → one `scale` times as large: PIL's, or uint8.

        It goes through the network until it is at least as large, and comes down by Pillow's Lanczos filter. `scale`:
        1 to 16; None: the network's own. `output_type`: `pil` or `np`. `cancel`: set it from another thread to end the
        call, which then returns None. Raises `RequestError`, `NumericError` and `IntegrityError`.
        """
        if short_text("output_type", output_type) not in OUTPUT_TYPES:
            raise RequestError(f"output_type is {show(output_type)}; choose one of {', '.join(OUTPUT_TYPES)}")
        pixels = picture_of("picture", picture)
        given = pixels if pixels.dtype == np.uint8 else to_uint8(pixels)
        (height, width, _), network = given.shape, self._opened.known.architecture
        size = self.size(height, width, scale)
        largest = max(size[0] * size[1], height * width * self.factor**2)
        if largest > LARGEST:
            raise RequestError(f"{largest} pixels would come out, at most {LARGEST} are made; give a smaller picture")
        total = tiles_of(network, height, width, size)
        ending = Ending(*([] if cancel is None else [cancel]))

        def advance() -> None:
            told()
            if ending.due():
                raise Ended

        try:
            with (
                self._one,
                ending.in_effect(),
                Loaded(self._opened.runner),
                track(progress or Silent(), "upscale", total=total, unit="tile") as told,
            ):
                made = enlarged(self._opened.runner, network, given, size, advance)
        except Ended:
            return None
        if output_type == "np":
            return made
        from PIL import Image

        return Image.fromarray(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.runner.device.close()
