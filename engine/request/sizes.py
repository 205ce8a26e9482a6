"""The picture sizes that SDXL was finetuned on, by name.

Source: the multi-aspect list of the SDXL report (Podell et al. 2023, 2307.01952, appendix I), each with its mirror:
about 1024² pixels, sides in multiples of 64. Other sizes work; these are the ones that the model has seen.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import RequestError

Size = tuple[int, int]
"""(width, height) in pixels."""

_LANDSCAPE: tuple[Size, ...] = (
    (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832), (1216, 832), (1280, 768), (1344, 768), (1344, 704),
    (1408, 704), (1472, 704), (1536, 640), (1600, 640), (1664, 576), (1728, 576), (1792, 576), (1856, 512), (1920, 512),
    (1984, 512), (2048, 512),
)  # fmt: skip
_NAMED: Mapping[str, Size] = {
    "4:3": (1152, 896), "7:5": (1152, 832), "3:2": (1216, 832), "5:3": (1280, 768), "16:9": (1344, 768),
    "2:1": (1408, 704), "21:9": (1536, 640), "3:1": (1728, 576), "4:1": (2048, 512),
}  # fmt: skip

BUCKETS: Mapping[str, Size] = MappingProxyType(
    {
        "square": (1024, 1024),
        "landscape": _NAMED["3:2"],
        "portrait": _NAMED["3:2"][::-1],
        "wide": _NAMED["16:9"],
        "tall": _NAMED["16:9"][::-1],
        "1:1": (1024, 1024),
        **_NAMED,
        **{":".join(reversed(name.split(":"))): (height, width) for name, (width, height) in _NAMED.items()},
        **{f"{w}x{h}": (w, h) for side in _LANDSCAPE for w, h in (side, side[::-1])},
        "1024x1024": (1024, 1024),
    }
)
"""Name → (width, height) for a model of native size 1024: words, aspect ratios (the nearest bucket), and `WxH`."""


def size_of(name: str, *, native: int = 1024) -> Size:
    """(width, height) of a bucket, scaled to a model's native size and rounded to multiples of 8.

    `native` is the side of the model's square pictures (`UNetArchitecture.sample_size * 8`). Raises `RequestError`.
    """
    size = BUCKETS.get(name.strip().lower())
    if size is None:
        from difflib import get_close_matches

        near = get_close_matches(name[:64].strip().lower(), BUCKETS, n=1)
        raise RequestError(
            f"size {name[:64]!r} is not a bucket{f', did you mean {near[0]!r}' if near else ''}; "
            f"choose one of {', '.join(n for n in BUCKETS if 'x' not in n)}, or give width and height"
        )
    width, height = (max(8, round(side * native / 1024 / 8) * 8) for side in size)
    return width, height
