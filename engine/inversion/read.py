"""One embedding file → its vectors for each text encoder: AUTOMATIC1111's, kohya's and diffusers' layouts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..architecture import Models
from ..errors import IncompatibleError, IntegrityError, StorageError
from ..stored.header import StoredTensor, read_header
from ..stored.numbers import Floats, floats

TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105  # no password
"""A text encoder's input for them where it is opened: (n, width), in place of the ids -1 to -n."""
MOST_VECTORS = 75
"""What a chunk of a prompt has room for."""
HASH_DIGITS = 12
"""Of a file's sha256 in settings, as AUTOMATIC1111 writes them."""
_FIRST, _SECOND = ("clip_l", "text_encoders_0"), ("clip_g", "text_encoders_1")
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """A word that is vectors."""

    name: str
    digest: str
    """sha256 of its file in hex."""
    vectors: Mapping[str, Floats] = field(compare=False, repr=False)
    """Text encoder → (n, width), n the same for each."""

    @property
    def count(self) -> int:
        """How many tokens it takes the place of."""
        return len(next(iter(self.vectors.values())))


def read_inversion(path: Path, models: Models) -> Inversion:
    """The word in a file, named by the file. Nothing is unpickled.

    Raises `IncompatibleError` for one of other text encoders, `IntegrityError` for a file that is damaged, has NaN or
    is no embedding, and `StorageError` for one that cannot be read.
    """
    tensors = read_header(path).tensors
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise IntegrityError(f"{path} has more than {_MOST_BYTES >> 20} MiB and is no embedding")
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    encoders = models.text_encoders
    found = {}
    for encoder, architecture in encoders.items():
        slot = _SECOND if encoder.endswith("text_encoder_2") else _FIRST
        stored = _slot(tensors, slot, alone=len(encoders) == 1)
        if stored is None:
            raise IncompatibleError(
                f"embedding {path.stem} has nothing for {encoder}: {_advice(path, tensors, models)}"
            )
        vectors = np.atleast_2d(floats(stored, memoryview(data)[stored.offset : stored.offset + stored.nbytes]))
        if vectors.ndim != 2 or vectors.shape[1] != architecture.hidden_size:
            raise IncompatibleError(
                f"embedding {path.stem} has vectors of {vectors.shape[-1]} numbers for {encoder}, whose own have "
                f"{architecture.hidden_size}: {_advice(path, tensors, models)}"
            )
        if not np.isfinite(vectors).all():
            raise IntegrityError(f"{path} holds NaN or Inf; fetch it again, or leave the embedding out")
        found[encoder] = vectors
    counts = {len(vectors) for vectors in found.values()}
    if len(counts) != 1 or not 1 <= min(counts) <= MOST_VECTORS:
        raise IntegrityError(
            f"{path} has {' and '.join(map(str, sorted(counts)))} vectors; an embedding has as many for each text "
            f"encoder, 1 to {MOST_VECTORS}"
        )
    return Inversion(name=path.stem, digest=hashlib.sha256(data).hexdigest(), vectors=found)


def _slot(tensors: Mapping[str, StoredTensor], names: tuple[str, ...], *, alone: bool) -> StoredTensor | None:
    for name in names:
        if name in tensors:
            return tensors[name]
    if not alone:
        return None
    # `emb_params`, or diffusers' one tensor under the name of the token.
    return tensors.get("emb_params") or (next(iter(tensors.values())) if len(tensors) == 1 else None)


def _advice(path: Path, tensors: Mapping[str, StoredTensor], models: Models) -> str:
    """What the file seems to be, and what this engine needs."""
    widths = sorted({stored.shape[-1] for stored in tensors.values() if stored.shape})
    own = " and ".join(str(architecture.hidden_size) for architecture in models.text_encoders.values())
    kind = {(768,): " (as those of SD 1.5 are)", (1024,): " (as those of SD 2 are)", (768, 1280): " (SDXL's)"}
    told = ", ".join(map(str, widths[:4])) or "no"
    return (
        f"it has {told} numbers a vector{kind.get(tuple(widths), '')}, this engine's text encoders {own}; "
        "give one of its model"
    )
