"""What the text encoders made of the last prompts, so that the same words are not encoded again."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from copy import copy

import numpy as np

Key = tuple[str, bytes]
"""(encoder, bytes of its 77 ids and of the vectors that those below 0 stand for)."""
Outputs = dict[str, np.ndarray]

CHUNKS = 32
"""Of all encoders together: eight prompts with negatives; at most 13 MB in SDXL, which the plan counts."""


class EncodedChunks:
    """The outputs of the encoders for the chunks of 77 ids that were asked for last; safe to share between threads."""

    def __init__(self, capacity: int = CHUNKS) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Outputs] = OrderedDict()
        self._changed: Mapping[str, str] = {}

    def under(self, keys: Mapping[str, str]) -> "EncodedChunks":
        """The same cache for encoders that adapters have changed: encoder → by what."""
        found = copy(self)
        found._changed = keys
        return found

    def get(self, key: Key) -> Outputs | None:
        """What the encoder gave for a chunk, if it is still here."""
        key = self._own(key)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Key, outputs: Outputs) -> None:
        """Keep a chunk's outputs; those that were not asked for the longest go."""
        key = self._own(key)
        with self._lock:
            self._kept[key] = outputs
            self._kept.move_to_end(key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._kept.clear()

    def _own(self, key: Key) -> Key:
        name, ids = key
        return (f"{name} {self._changed[name]}", ids) if name in self._changed else key
