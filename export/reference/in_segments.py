"""A stand-in's answers with the weights of one segment in memory at a time.

ONNX Runtime's CPU provider makes float32 of halves, and copies of those in the layouts of its kernels: as a whole, a
full-size U-Net in half precision took four times its file. So the graph is cut as a streamed component is, and all
samples go through a segment before the next one is opened; what is between two of them is small, since samples are few
and of the calibration's size.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.runners.cores import available_cores
from ...engine.runners.interruptible import run_interruptibly
from ...engine.runners.ort import MODEL_FILE
from ...engine.runners.ort_session import (
    import_onnxruntime,
    load_error,
    open_session,
    run_error,
    run_options,
    trim_heap,
)
from ...engine.specs import Arrays
from ..graph.segments import write_segments

MOST_BYTES = 128 << 20
"""Weights of a segment: half a gigabyte of copies, and some twenty sessions for a full-size U-Net in halves."""


def run_in_segments(
    folder: Path, name: str, samples: Sequence[Arrays], *, threads: int | None = None, most: int = MOST_BYTES
) -> list[dict[str, np.ndarray]]:
    """The outputs of `folder`'s `model.onnx` for each sample; the segments are written beside it.

    `name`: the component's, for errors. Raises `IncompatibleError` if ONNX Runtime cannot run it, `MemoryBudgetError`
    and `StorageError`.
    """
    segments, _ = write_segments(folder, most)
    files = [folder / segment.file for segment in segments] or [folder / MODEL_FILE]
    wanted = _needed(files)
    carried: list[dict[str, np.ndarray]] = [dict(sample) for sample in samples]
    for file, needed in zip(files, wanted, strict=True):
        session = _open(file, name, available_cores() if threads is None else threads)
        for index, values in enumerate(carried):
            made = values | _run(session, name, values)
            carried[index] = {name: value for name, value in made.items() if name in needed}
        del session
        trim_heap()
    return carried


def _needed(files: Sequence[Path]) -> list[frozenset[str]]:
    """What is still needed behind each file: what later ones take, and behind the last what it makes."""
    import onnx

    graphs = [onnx.load(file, load_external_data=False).graph for file in files]
    later = {value.name for graph in graphs for value in graph.output} - {
        value.name for graph in graphs for value in graph.input
    }
    found = []
    for graph in reversed(graphs):
        found.append(frozenset(later))
        later |= {value.name for value in graph.input}
    return found[::-1]


def _open(file: Path, name: str, threads: int) -> Any:
    try:
        return open_session(file, threads, patterns=False, int8=False)
    except Exception as error:
        raise load_error(error, name, file, MOST_BYTES / 1e9) from error


def _run(session: Any, name: str, values: Arrays) -> dict[str, np.ndarray]:
    outputs, feeds = ([value.name for value in side] for side in (session.get_outputs(), session.get_inputs()))
    options = run_options(import_onnxruntime())
    run = partial(session.run, outputs, {feed: values[feed] for feed in feeds}, options)
    try:
        found = run_interruptibly(run, partial(setattr, options, "terminate", True))
    except Exception as error:
        raise run_error(error, name) from error
    # Copies: an output lies in the session's arena, and would keep the whole region there.
    return {output: np.array(value) for output, value in zip(outputs, found, strict=True)}
