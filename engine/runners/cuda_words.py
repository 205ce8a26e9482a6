"""What the host does for a text encoder on the GPU: it turns tokens into vectors, and finds the row where a text ends.

A text has 77 of the table's 49,408 rows, so the table stays on the disk, and a few of its pages in memory. Vectors of
textual inversions take the place of the table's.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..inversion.read import TOKEN_EMBEDDINGS
from ..program.program import Edge, Layout, Program
from .base import Value, Values

Ids = npt.NDArray[np.int64]


class WordTable:
    """The table of one component, from a file whose hash and size have matched."""

    def __init__(self, path: Path, program: Program) -> None:
        self._edge, self.words = next((edge, edge.words) for edge in program.inputs if edge.words is not None)
        self._ends = tuple(edge.tensor for edge in program.outputs if edge.layout is Layout.END_OF_TEXT)
        shape = (self.words.words + self.words.tokens, self.words.width)
        self._rows = np.memmap(path, np.float16, "r", shape=shape)

    @property
    def edge(self) -> Edge:
        """The input of ids."""
        return self._edge

    def embedded(self, inputs: Values) -> dict[str, Value]:
        """The inputs with a vector in place of each id: float16 `[batch, tokens, width]`. -1, -2, … are given vectors.

        Raises `RequestError` for an id that the table, or what was given, does not have.
        """
        given: dict[str, Value] = {name: value for name, value in inputs.items() if name != TOKEN_EMBEDDINGS}
        ids = np.asarray(given[self._edge.tensor])
        own = ids < 0
        vectors = np.asarray(inputs[TOKEN_EMBEDDINGS], np.float32) if TOKEN_EMBEDDINGS in inputs else None
        known = self.words.words
        least = 0 if vectors is None else -len(vectors)
        if not ((ids >= least) & (ids < known)).all():
            wrong = int(ids[(ids < least) | (ids >= known)][0])
            raise RequestError(f"{self._edge.tensor} has {wrong}, {least} to {known - 1} are allowed")
        rows = self._rows[np.where(own, 0, ids)].astype(np.float32)
        if vectors is not None:
            rows[own] = vectors[-1 - ids[own]]
        rows += self._rows[known:]
        with np.errstate(over="ignore"):  # infinite then, and found in what comes of it
            given[self._edge.tensor] = rows.astype(np.float16)
        return given

    def picked(self, outputs: dict[str, Value], inputs: Values) -> dict[str, Value]:
        """The outputs, those of a text's end with that row alone: `[batch, width]`. `inputs`: as `embedded` got them.

        A vector that was given ends no text: where else ids are looked at, it counts as 0.
        """
        if not self._ends:
            return outputs
        ids = np.maximum(np.asarray(inputs[self._edge.tensor]), 0)
        at = (ids if self.words.end is None else ids == self.words.end).argmax(-1)
        found = {name: np.asarray(outputs[name])[np.arange(len(at)), at] for name in self._ends}
        return {**outputs, **found}
