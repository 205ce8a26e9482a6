"""An ONNX file for the builder's parser, its weights in memory maps whose pages are let go again while it builds.

The builder reads each weight a few times over minutes and makes copies of its own. Pages that it has read stay in its
resident set: 1.1 times the weights' bytes, measured on a U-Net in halves, on top of 2.8 times in copies and the graph.
A page that is let go comes back from the system's cache, or from the file.
"""

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 0.5
"""Seconds after which pages are let go: it reads less than a gigabyte meanwhile."""


@contextmanager
def mapped(parser: Any, path: Path) -> Iterator[bool]:
    """Have the parser read the ONNX file; whether it could. The weights are there until the block is left.

    Raises `OSError` when a file cannot be read.
    """
    import onnx

    content = path.read_bytes()
    maps: dict[str, mmap.mmap] = {}
    views: dict[str, np.ndarray] = {}
    read = parser.load_model_proto(content, str(path))
    for tensor in onnx.ModelProto.FromString(content).graph.initializer if read else ():
        if not read:
            break
        where = {entry.key: entry.value for entry in tensor.external_data}
        if not where:
            continue
        name = where["location"]
        if name not in maps:
            with (path.parent / name).open("rb") as file:
                maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            views[name] = np.frombuffer(maps[name], np.uint8)
        address = views[name].ctypes.data + int(where.get("offset", 0))
        read = parser.load_initializer(tensor.name, address, int(where["length"]))
    ended = threading.Event()
    letting_go = threading.Thread(target=_let_go, args=(tuple(maps.values()), ended), daemon=True)
    letting_go.start()
    try:
        yield bool(read and parser.parse_model_proto())
    finally:
        ended.set()
        letting_go.join()


def _let_go(maps: tuple[mmap.mmap, ...], ended: threading.Event) -> None:
    advice = getattr(mmap, "MADV_DONTNEED", None)
    while advice is not None and not ended.wait(EVERY):
        for one in maps:
            one.madvise(advice)
