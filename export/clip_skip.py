"""Text encoders that are read before their penultimate layer."""

from dataclasses import replace

from ..engine.architecture import TextOutput
from ..engine.errors import RequestError
from .checkpoint.open import Checkpoint


def skipping(checkpoint: Checkpoint, clip_skip: int) -> Checkpoint:
    """The checkpoint with its text encoders read `clip_skip` layers before the penultimate one, as diffusers means it.

    Raises `RequestError` where they have too few layers, or are not read at the penultimate one at all.
    """
    if not clip_skip:
        return checkpoint
    encoders = checkpoint.text_encoder_architectures
    most = min(encoder.num_hidden_layers for encoder in encoders.values()) - 2
    if not 0 <= clip_skip <= most:
        raise RequestError(f"clip_skip is {clip_skip}; the text encoders of {checkpoint.source} allow 0 to {most}")
    if any(encoder.output is not TextOutput.PENULTIMATE for encoder in encoders.values()):
        raise RequestError(f"clip_skip is {clip_skip}, and {checkpoint.source} reads its text encoders' last layer")
    return replace(
        checkpoint,
        text_encoder_architectures={name: replace(one, clip_skip=clip_skip) for name, one in encoders.items()},
    )
