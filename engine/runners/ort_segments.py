"""A component in segments on ONNX Runtime: each has a session, and with it its weights in memory, while it computes.

The weights are mapped from the engine's file and not laid out anew (`session.disable_prepacking`): a copy would cost
more time than the products lose without it, at every call (docs/streaming.md). So a session is made in milliseconds,
and with it go its pages. While one segment computes, a thread makes the next one's session and has the system read its
weights.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError
from ..folder.manifest import Segment
from ..specs import Arrays, ComponentSpec
from .ort_session import trim_heap

Open = Callable[[Path], Any]
"""Makes the session of one segment's file."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One segment: its file, where its weights lie, and what goes in and out by name."""

    path: Path
    segment: Segment
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last: frozenset[str] = frozenset()
    """What nobody needs behind it."""


class Segments:
    """Stands in for a session of the whole graph: `run` takes and gives the same, to the bit."""

    def __init__(self, name: str, spec: ComponentSpec, weights: Path, segments: Sequence[Segment], open: Open) -> None:
        """Look at every segment once; `weights` is the file that they all read, beside which they lie.

        Raises `IntegrityError` if they are not the component that `spec` describes.
        """
        self._weights, self._open = weights, open
        steps = []
        for segment in segments:
            session = open(weights.parent / segment.file)
            names = [tuple(value.name for value in side) for side in (session.get_inputs(), session.get_outputs())]
            steps.append(_Step(path=weights.parent / segment.file, segment=segment, inputs=names[0], outputs=names[1]))
        self._steps = _chained(name, spec, steps)

    def run(self, outputs: Sequence[str], feeds: Arrays, options: Any) -> list[np.ndarray]:
        """What a session's `run` gives; `options.terminate` ends it in its middle, as there."""
        values: dict[str, np.ndarray] = dict(feeds)
        with ThreadPoolExecutor(1, "pocketxl-next-segment") as ahead:
            coming: Future[Any] | None = ahead.submit(self._ready, self._steps[0])
            for step, following in zip(self._steps, (*self._steps[1:], None), strict=True):
                assert coming is not None
                session = coming.result()
                coming = None if following is None else ahead.submit(self._ready, following)
                found = session.run(step.outputs, {name: values[name] for name in step.inputs}, options)
                for name in step.last:
                    del values[name]
                # Copies: an output lies in the session's arena, and would keep the whole region there.
                values |= {name: np.array(found.pop(0)) for name in step.outputs}
                del session, found
                trim_heap()  # a session's arena is freed piece by piece, of which the C library keeps half
        return [values[name] for name in outputs]

    def _ready(self, step: _Step) -> Any:
        """The session of a segment, and its weights on their way from the disk."""
        _read_ahead(self._weights, step.segment)
        return self._open(step.path)


def _chained(name: str, spec: ComponentSpec, steps: Sequence[_Step]) -> tuple[_Step, ...]:
    """The steps, each with what nobody needs behind it; every input is there when its segment runs."""
    wanted = {tensor.name for tensor in spec.outputs}
    made = {tensor.name for tensor in spec.inputs}
    for step in steps:
        if lacking := sorted(set(step.inputs) - made):
            raise _disagree(name, step.segment.file, lacking)
        made |= set(step.outputs)
    if lacking := sorted(wanted - made):
        raise _disagree(name, "the last segment", lacking)
    needed, found = set(wanted), []
    for step in reversed(steps):
        found.append(replace(step, last=frozenset(set(step.inputs) - needed)))
        needed |= set(step.inputs)
    return tuple(reversed(found))


def _disagree(name: str, where: str, tensors: Sequence[str]) -> IntegrityError:
    return IntegrityError(
        f"{name}: engine.json and {where} disagree on {', '.join(tensors[:3])}; build the engine again with "
        "`pocketxl build`, or copy the folder again"
    )


def _read_ahead(weights: Path, segment: Segment) -> None:
    """Have the system read a segment's weights into its cache; only POSIX can be asked to, elsewhere they come late."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None or not segment.size:
        return
    file = os.open(weights, os.O_RDONLY)
    try:
        advise(file, segment.start, segment.size, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


def bytes_of(segments: Sequence[Segment], *, together: int) -> int:
    """Weights of the `together` neighbours that have most."""
    sizes = [segment.size for segment in segments]
    return max(sum(sizes[at : at + together]) for at in range(len(sizes)))
