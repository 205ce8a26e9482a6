"""Content digests of a checkpoint's parts."""

from collections.abc import Callable
from functools import partial

from .checkpoint.open import Checkpoint
from .components import parts_of
from .publish.digests import cached_digest, known_digest


def unread_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights whose digest must be computed."""
    parts = {part: checkpoint.weights(part) for part in parts_of(checkpoint)}
    known = {part: known_digest(weights.files(), f"{checkpoint.kind}.{part}") for part, weights in parts.items()}
    return sum(weights.bytes for part, weights in parts.items() if known[part] is None)


def digest_part(advance: Callable[[int], None], checkpoint: Checkpoint, part: str) -> str:
    """The digest of a checkpoint's part; `advance` hears of the bytes that are read for it."""
    weights = checkpoint.weights(part)
    return cached_digest(weights.files(), f"{checkpoint.kind}.{part}", partial(weights.digest, advance))
