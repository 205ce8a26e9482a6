"""Weights from their file to the GPU: file → two pieces of pinned memory in turn → the GPU.

While one piece is on its way the next is read, and the machine's memory never holds the weights twice.
"""

import mmap
from pathlib import Path

import numpy as np

from .device import CudaArray, CudaDevice
from .pinned import Pinned

PIECE = 32 << 20
"""Bytes."""


def upload_file(device: CudaDevice, path: Path) -> CudaArray:
    """The whole file in the GPU's memory, as bytes. Raises `MemoryBudgetError`."""
    size = path.stat().st_size
    made = device.empty((size,), np.dtype(np.uint8))
    if not size:
        return made
    pieces: list[Pinned] = []
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            pieces = [Pinned(device.driver, min(PIECE, size)) for _ in range(2 if size > PIECE else 1)]
            for i, start in enumerate(range(0, size, PIECE)):
                piece = pieces[i % 2]
                length = min(PIECE, size - start)
                here = piece.array((length,), made.stored)
                here[:] = np.frombuffer(content, np.uint8, length, start)
                device.driver.synchronize()  # the other piece has arrived, so that the next turn may fill it
                device.driver.upload(made.address + start, here)
            device.driver.synchronize()
    except BaseException:
        made.release()
        raise
    finally:
        for piece in pieces:
            piece.release()
    return made
