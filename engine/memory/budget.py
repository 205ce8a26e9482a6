"""A memory budget as callers give it."""

from .plan import LEAST
from .sizes import parse_bytes

OUT_OF_MEMORY = "the machine ran out of memory; see `Pipeline.plan` for what a picture needs, or give a budget"


def budget_of(value: int | str | None) -> int | None:
    """Bytes, or text such as `"4GiB"`, as bytes; None and `LEAST` as they are. Raises `RequestError`."""
    return value if value is None or value == LEAST else parse_bytes(value)
