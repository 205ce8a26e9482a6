"""What a case hands to every system: the same float32 numbers. Needs numpy only, as the light install does."""

import json
from typing import Final

import numpy as np

from .cases import Case
from .job import Model, Network

TOKENS: Final = 77
TIMESTEP: Final = 499.0
PROMPT: Final = "a red apple on a blue background"
SEED: Final = 7
GUIDANCE: Final = 5.0
HAND_OFF: Final = 0.8
SCORES: Final = (6.0, 2.5)
"""The aesthetic scores that diffusers tells a refiner, for a prompt and for its negative."""
PATCH: Final = 8
NOISE: Final = 0.2
"""Of the latents that a VAE decodes: the side of a patch, and the deviation of the noise on it."""
Feeds = dict[str, np.ndarray]


def unet_feeds(model: Model, network: Network, size: int, batch: int, *, seed: int = SEED) -> Feeds:
    """Of diffusers' U-Net: sample, timestep, encoder_hidden_states, text_embeds and time_ids; noise, one row each."""
    config = json.loads((model.folder(network) / "config.json").read_text(encoding="utf-8"))
    ids = [size, size, 0, 0, *([SCORES[0]] if network == "refiner" else [size, size])]
    pooled = config["projection_class_embeddings_input_dim"] - len(ids) * config["addition_time_embed_dim"]
    random = np.random.default_rng([seed, size, batch])

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    return {
        "sample": normal(batch, 4, size // 8, size // 8),
        "timestep": np.array([TIMESTEP], np.float32),
        "encoder_hidden_states": normal(batch, TOKENS, config["cross_attention_dim"]),
        "text_embeds": normal(batch, pooled),
        "time_ids": np.array([ids] * batch, np.float32),
    }


def vae_feeds(model: Model, size: int, *, seed: int = SEED) -> Feeds:
    """Of a decoder: latents, already divided by the scaling factor, of patches with a little noise.

    Noise alone is no picture, and further from what ranges are calibrated on than any.
    """
    random, side = np.random.default_rng([seed, size]), size // 8
    coarse = random.standard_normal((1, 4, -(-side // PATCH), -(-side // PATCH)), np.float32)
    patches = coarse.repeat(PATCH, axis=2).repeat(PATCH, axis=3)[:, :, :side, :side]
    noise = random.standard_normal(patches.shape, np.float32)
    latents = np.sqrt(1 - NOISE**2) * patches + NOISE * noise
    return {"latents": (latents / scaling_factor(model)).astype(np.float32)}


def scaling_factor(model: Model) -> float:
    """What the VAE's latents are multiplied by to have a variance of one."""
    config = json.loads((model.folder("vae") / "config.json").read_text(encoding="utf-8"))
    return float(config["scaling_factor"])


def feeds_of(model: Model, case: Case, *, seed: int = SEED) -> Feeds:
    """Of a forward or a decode."""
    if case.kind == "vae":
        return vae_feeds(model, case.size, seed=seed)
    return unet_feeds(model, "base", case.size, 1, seed=seed)
