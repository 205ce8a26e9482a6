"""What `engine.json` says of what stands beside an engine must agree with itself, and with the base that it is for."""

from collections.abc import Iterator

from ..architecture import NO_MODELS, Models, UNetArchitecture
from ..bounds import LEVELS, outside
from ..companion import CONTROLNET, HINT_LEVELS, Companion
from ..image_prompt import IMAGE_PROMPT, VISION, IPAdapterArchitecture
from ..t2i_adapter import T2I_ADAPTER, T2IAdapterArchitecture
from ..upscaler import BOUNDS as UPSCALER
from ..upscaler import UpscalerArchitecture


def companion_faults(companion: Companion, models: Models) -> Iterator[str]:
    """What is out of bounds among its numbers, and where they contradict those of the models that it was built with."""
    controlnet, adapter, features = companion.controlnet, companion.ip_adapter, companion.t2i_adapter
    upscaler = companion.upscaler
    if sum(one is not None for one in (controlnet, adapter, features, upscaler)) != 1:
        yield " has several of a ControlNet, an IP-Adapter, a T2I adapter and an upscaler, or none; one is allowed"
        return
    if features is not None:
        yield from (f".t2i_adapter{fault}" for fault in _feature_faults(features, models))
    if upscaler is not None:
        yield from (f".upscaler.{fault}" for fault in _upscaler_faults(upscaler, models))
    if adapter is not None:
        yield from (f".ip_adapter{fault}" for fault in _adapter_faults(adapter, models))
    if controlnet is None:
        return
    yield from (f".controlnet.{fault}" for fault in outside(controlnet, CONTROLNET))
    if len(controlnet.hint_widths) != HINT_LEVELS:
        yield f".controlnet.hint_widths are {len(controlnet.hint_widths)}, they must be {HINT_LEVELS}"
    if controlnet.fuser_layers and not controlnet.control_types:
        yield ".controlnet.fuser_layers are a union's, and it tells no kinds of hints apart"
    yield from (f".controlnet{fault}" for fault in level_faults(controlnet))
    if "base" not in models.denoisers:
        yield ".controlnet was built with a base, and models has none"
    elif misfit := controlnet.misfits(models.denoisers["base"].unet):
        yield f".controlnet does not fit: {misfit}"


def _upscaler_faults(upscaler: UpscalerArchitecture, models: Models) -> Iterator[str]:
    yield from outside(upscaler, UPSCALER)
    yield from upscaler.faults()
    if models != NO_MODELS:
        yield "factor: it goes with every engine, and models has some of one"


def _adapter_faults(adapter: IPAdapterArchitecture, models: Models) -> Iterator[str]:
    yield from (f".{fault}" for fault in outside(adapter, IMAGE_PROMPT))
    yield from (f".vision.{fault}" for fault in outside(adapter.vision, VISION))
    if adapter.vision.image_size % adapter.vision.patch_size:
        yield f".vision.image_size is {adapter.vision.image_size}, no multiple of {adapter.vision.patch_size}"
    if adapter.plus != (adapter.resampler_heads > 0 and adapter.resampler_depth > 0 and adapter.resampler_inner > 0):
        yield " has a resampler in part"
    if "base" not in models.denoisers:
        yield " was built with a base, and models has none"
    elif misfit := adapter.misfits(models.denoisers["base"].unet):
        yield f" does not fit: {misfit}"


def _feature_faults(adapter: T2IAdapterArchitecture, models: Models) -> Iterator[str]:
    yield from (f".{fault}" for fault in outside(adapter, T2I_ADAPTER))
    if "base" not in models.denoisers:
        yield " was built with a base, and models has none"
    elif misfit := adapter.misfits(models.denoisers["base"].unet):
        yield f" does not fit: {misfit}"


def level_faults(unet: UNetArchitecture) -> Iterator[str]:
    """Lists that are not as long as there are levels, and too many of those."""
    levels = len(unet.block_out_channels)
    if not LEVELS[0] <= levels <= LEVELS[1]:
        yield f".block_out_channels has {levels} levels, {LEVELS[0]} to {LEVELS[1]} are allowed"
    for name in ("transformer_layers", "up_transformer_layers", "heads"):
        if len(getattr(unet, name)) != levels:
            yield f".{name} has {len(getattr(unet, name))} numbers for {levels} levels"
    for name, layers in (("transformer_layers", 0), ("up_transformer_layers", 1)):
        for depths in getattr(unet, name):
            if isinstance(depths, tuple) and len(depths) != unet.layers_per_block + layers:
                yield f".{name} has {len(depths)} numbers for a level of {unet.layers_per_block + layers} layers"
