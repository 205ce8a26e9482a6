"""How many threads torch computes with, for a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..engine.request.limits import integer


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block (None: as it is), and as before behind it."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(integer("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
