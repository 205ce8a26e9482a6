"""A picture from a text with a peer's networks: diffusers' own text encoding, sampler and hand-over, part by part.

Text encoders, U-Nets and VAE are in memory one after another, as whoever has little of it would do with each peer.
"""

import gc
import time
from typing import Any

import numpy as np
import torch

from .cases import Case
from .inputs import GUIDANCE, HAND_OFF, PROMPT, SCORES, SEED, Feeds, scaling_factor
from .job import Model, Network
from .systems import Networks

TRAINED_STEPS = 1000


def picture(system: Networks, model: Model, case: Case) -> tuple[np.ndarray, float]:
    """The picture `[h, w, 3]` in 0 to 1, and the seconds that loading took."""
    from diffusers import EulerDiscreteScheduler

    torch.set_num_threads(model.threads)
    loads: list[float] = []
    refined = "refiner" in model.networks(case)
    texts = _texts(system, model, case, loads, refined)
    scheduler = EulerDiscreteScheduler.from_pretrained(model.base / "scheduler")
    scheduler.set_timesteps(case.steps)
    shape = (1, 4, case.size // 8, case.size // 8)
    latents = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(SEED)) * scheduler.init_noise_sigma
    hand_over = TRAINED_STEPS * (1 - HAND_OFF) if refined else 0
    for network in ("base", "refiner") if refined else ("base",):
        part = [t for t in scheduler.timesteps if (t >= hand_over) == (network == "base")]
        latents = _denoise(system, network, texts[network], part, scheduler, latents, loads)
        gc.collect()
    feeds = {"latents": (latents / scaling_factor(model)).numpy()}
    begin = time.perf_counter()
    decode = system.load("vae", feeds)
    loads.append(time.perf_counter() - begin)
    return np.clip(decode(feeds)[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1), sum(loads)


def _denoise(
    system: Networks, network: Network, text: Feeds, timesteps: list[Any], scheduler: Any, latents: Any,
    loads: list[float],
) -> Any:  # fmt: skip
    rows, call = len(text["text_embeds"]), None
    for timestep in timesteps:
        given = scheduler.scale_model_input(torch.cat([latents] * rows), timestep)
        feeds = {"sample": given.numpy(), "timestep": np.array([float(timestep)], np.float32), **text}
        if call is None:
            begin = time.perf_counter()
            call = system.load(network, feeds)
            loads.append(time.perf_counter() - begin)
        noise = torch.from_numpy(np.asarray(call(feeds), np.float32))
        if rows == 2:
            negative, positive = noise.chunk(2)
            noise = negative + GUIDANCE * (positive - negative)
        latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
    return latents


def _texts(system: Networks, model: Model, case: Case, loads: list[float], refined: bool) -> dict[str, Feeds]:
    """What each network is told of text and sizes; the negative's row first where there is guidance."""
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    found = {}
    sources: list[tuple[str, Any, Any]] = [("base", StableDiffusionXLPipeline, model.base)]
    if refined:
        sources.append(("refiner", StableDiffusionXLImg2ImgPipeline, model.refiner))
    for network, kind, folder in sources:
        begin = time.perf_counter()
        pipe = kind.from_pretrained(folder, unet=None, vae=None, torch_dtype=getattr(torch, system.text_dtype))
        loads.append(time.perf_counter() - begin)
        with torch.no_grad():
            encoded = pipe.encode_prompt(
                PROMPT, negative_prompt="", do_classifier_free_guidance=case.guided, num_images_per_prompt=1
            )
        del pipe
        gc.collect()
        positive, negative, pooled, negative_pooled = (None if e is None else e.float().numpy() for e in encoded)
        ids = [case.size, case.size, 0, 0]
        ends = [[score] for score in SCORES] if network == "refiner" else [[case.size, case.size]] * 2
        both = [(positive, pooled, ids + ends[0])]
        if case.guided:
            both.insert(0, (negative, negative_pooled, ids + ends[1]))
        found[network] = {
            "encoder_hidden_states": np.concatenate([hidden for hidden, _, _ in both]),
            "text_embeds": np.concatenate([pooled for _, pooled, _ in both]),
            "time_ids": np.array([ids for _, _, ids in both], np.float32),
        }
    return found
