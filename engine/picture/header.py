"""What a picture file says without its pixels."""

from dataclasses import dataclass

MAX_TEXT_BYTES = 4 << 20
"""More text than this is neither written nor read."""


@dataclass(frozen=True, kw_only=True)
class PictureHeader:
    """Size in pixels, and the `parameters` text: None where the file has none."""

    width: int
    height: int
    parameters: str | None
    graph: str | None = None
    """ComfyUI's, where the file has one and no `parameters`."""
