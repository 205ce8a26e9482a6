"""The least and the greatest of every number that shapes a model: what a checkpoint or an engine may say of itself.

Wide enough for every model of the family, and small enough that whatever is derived from them (blocks, tensors, bytes)
is worked out in a moment. Those of a scheduler stand in `sampling.levels.config`.
"""

import reprlib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

Bounds = Mapping[str, tuple[float, float]]
"""Field → least and greatest, ends included; of a list, those of its elements."""

MOST_CHANNELS = 1 << 16
MOST_WORDS = 1 << 20
LEVELS: tuple[int, int] = (1, 8)
"""How many levels a U-Net may have."""
VAE_LEVELS = 4
"""The family's latents are an eighth of the picture along each side, whatever the VAE's widths."""

UNET: Bounds = {
    "in_channels": (1, 64),
    "out_channels": (1, 64),
    "block_out_channels": (1, MOST_CHANNELS),
    "transformer_layers": (0, 64),
    "up_transformer_layers": (0, 64),
    "mid_transformer_layers": (0, 64),
    "layers_per_block": (1, 64),
    "heads": (1, 1024),
    "cross_attention_dim": (1, MOST_CHANNELS),
    "addition_time_embed_dim": (0, MOST_CHANNELS),
    "time_cond_proj_dim": (0, MOST_CHANNELS),
    "projection_class_embeddings_input_dim": (0, MOST_CHANNELS),
    "norm_num_groups": (1, 1024),
    "norm_eps": (1e-12, 1.0),
    # The greatest is that of a request: 4096 pixels along each side.
    "sample_size": (1, 512),
}
TEXT_ENCODER: Bounds = {
    "vocab_size": (1, MOST_WORDS),
    "hidden_size": (1, MOST_CHANNELS),
    "intermediate_size": (1, MOST_CHANNELS),
    # The one before the last is read.
    "num_hidden_layers": (2, 64),
    "num_attention_heads": (1, 1024),
    "eos_token_id": (0, MOST_WORDS),
    "layer_norm_eps": (1e-12, 1.0),
    "max_position_embeddings": (3, 1024),
    "projection_dim": (0, MOST_CHANNELS),
    "clip_skip": (0, 62),
}
VAE: Bounds = {
    "block_out_channels": (1, MOST_CHANNELS),
    "layers_per_block": (1, 64),
    "norm_num_groups": (1, 1024),
    "latent_channels": (1, 64),
    "out_channels": (3, 3),
    "scaling_factor": (1e-6, 1e6),
}


def outside(numbers: Any, bounds: Bounds) -> Iterator[str]:
    """What is out of bounds among the fields of a dataclass, each as `name is value, least to greatest is allowed`."""
    for name, (least, most) in bounds.items():
        value = getattr(numbers, name)
        values = chain.from_iterable(one if isinstance(one, tuple) else (one,) for one in _listed(value))
        if not all(least <= number <= most for number in values):
            yield f"{name} is {reprlib.repr(value)}, {least} to {most} is allowed"


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
