"""Bytes as people write them."""

import re

from ..errors import RequestError

GiB = 1 << 30
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_bytes(text: str | int) -> int:
    """`"4GiB"`, `"900MB"`, `"4g"` or a plain number of bytes → bytes. Raises `RequestError`."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", str(text), re.IGNORECASE | re.ASCII)
    value = float(found[1]) * _UNITS[(found[2] or "").lower()] if found and len(str(text)) < 40 else 0
    if value < 1:
        raise RequestError(f"memory size {text!r} is not understood; write it like 4GiB, 900MB or 4294967296")
    return int(value)


def format_bytes(count: int) -> str:
    """Bytes for people: `2.41 GiB`, `310 MiB`."""
    return f"{count / GiB:.2f} GiB" if count >= GiB else f"{count / (1 << 20):.0f} MiB"
