"""Which components an engine has, and for each: its edge, its torch module, its weights and where they come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..engine.architecture import SDXL
from ..engine.companion import Companion
from ..engine.errors import IncompatibleError
from ..engine.specs import ComponentSpec
from ..engine.tiny import TINY_DECODER
from .checkpoint.families import FAMILIES
from .checkpoint.open import Checkpoint
from .checkpoint.tiny import TinyDecoderSource
from .checkpoint.weights import Weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of an engine to be."""

    name: str
    spec: ComponentSpec
    module: "Callable[[], nn.Module]"
    """Makes the torch module; call it on the meta device."""
    source: str
    """Whose weights it is made from, for the build key: `base.unet`, `refiner.text_encoder_2`, …"""
    configuration: Any
    """What else shapes it, for the build key."""
    part: Weights
    """All weights of `source`."""

    @cached_property
    def weights(self) -> Weights:
        """Those of `part` that the module uses.

        `IntegrityError` names the missing ones of an incomplete checkpoint, `IncompatibleError` one of another shape.

        Found when they are asked for: making the module costs the import of torch, which a cache hit has no time for.
        """
        import torch

        with torch.device("meta"):
            used = {name: tuple(tensor.shape) for name, tensor in self.module().state_dict().items()}
        weights = self.part.only(used)
        for name, shape in used.items():
            if weights.shape(name) != shape:
                raise IncompatibleError(
                    f"{weights.stored(name).path}: {name} of {self.source} has shape {weights.shape(name)} where its "
                    f"configuration asks for {shape}; give those that belong together"
                )
        return weights


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The models of one engine and what they are made of."""

    checkpoints: Mapping[str, Checkpoint]
    """`base`, and `refiner` if there is one; none for what goes with every engine."""
    components: Mapping[str, Component]
    text_encoders: Mapping[str, tuple[str, ...]]
    """Model kind → the components whose hidden states it takes, in order."""
    digests: Mapping[str, str]
    """`base.unet` → content digest of those weights."""
    companion: Companion | None = None
    """What the components are of, if not of an engine; `checkpoints` are then those that it is used with."""
    beside: Mapping[str, Component] = field(default_factory=dict)
    """Those that the reference run needs besides, and that are not built."""
    tiny_decoder: TinyDecoderSource | None = None


def assemble(
    base: Checkpoint,
    refiner: Checkpoint | None,
    digest: Callable[[Checkpoint, str], str],
    tiny_decoder: TinyDecoderSource | None = None,
) -> Assembly:
    """List the components in running order.

    Base and refiner share text encoder 2 if weights and configurations are equal (as published); a refiner whose own
    differs, because the base was fine-tuned, brings it along as `refiner/text_encoder_2`. The VAE and tokenizers are
    the base's.
    """
    if refiner is not None and (found := FAMILIES[base.kind]).models != SDXL:
        raise IncompatibleError(f"{base.source} is {found.title}; a refiner goes on from SDXL's latents: leave it out")
    checkpoints = {"base": base} | ({"refiner": refiner} if refiner else {})
    digests = {
        f"{kind}.{part}": digest(checkpoint, part)
        for kind, checkpoint in checkpoints.items()
        for part in parts_of(checkpoint)
    }
    text_encoders = {"base": tuple(base.text_encoder_architectures)}
    components = [_text_encoder(base, "base", name, name) for name in text_encoders["base"]]
    if refiner:
        shared = digests["refiner.text_encoder_2"] == digests["base.text_encoder_2"] and (
            refiner.text_encoder_architecture("text_encoder_2") == base.text_encoder_architecture("text_encoder_2")
        )
        name = "text_encoder_2" if shared else "refiner/text_encoder_2"
        text_encoders["refiner"] = (name,)
        if not shared:
            components.append(_text_encoder(refiner, "refiner", "text_encoder_2", name))
    for kind, checkpoint in checkpoints.items():
        components += _unet(checkpoint, kind)
    components += _vae(base)
    if tiny_decoder is not None:
        components.append(_tiny_decoder(tiny_decoder))
    return Assembly(
        checkpoints=checkpoints,
        components={c.name: c for c in components},
        text_encoders=text_encoders,
        digests=digests,
        tiny_decoder=tiny_decoder,
    )


def parts_of(checkpoint: Checkpoint) -> list[str]:
    """The parts of a checkpoint that an engine is made from: all, but a refiner's VAE, which is the base's."""
    return [part for part in checkpoint.components if (checkpoint.kind, part) != ("refiner", "vae")]


def _text_encoder(checkpoint: Checkpoint, kind: str, part: str, name: str) -> Component:
    architecture = checkpoint.text_encoder_architecture(part)

    def module() -> "nn.Module":
        from ..engine.models.clip import ClipTextEncoder

        return ClipTextEncoder(architecture)

    return Component(
        name=name,
        spec=architecture.component(),
        module=module,
        source=f"{kind}.{part}",
        configuration=architecture,
        part=checkpoint.weights(part),
    )


def _unet(checkpoint: Checkpoint, kind: str) -> list[Component]:
    arch, weights = checkpoint.architecture.unet, checkpoint.weights("unet")

    def conditioner() -> "nn.Module":
        from ..engine.models.conditioner import Conditioner

        return Conditioner(arch)

    def unet() -> "nn.Module":
        from ..engine.models.unet import UNet

        return UNet(arch)

    return [
        Component(
            name=f"{kind}/{part}", spec=spec, module=module, source=f"{kind}.unet", configuration=arch, part=weights
        )
        for part, spec, module in (("conditioner", arch.conditioner(), conditioner), ("unet", arch.unet(), unet))
    ]


def _vae(checkpoint: Checkpoint) -> list[Component]:
    """The decoder, and the encoder where the checkpoint has its weights."""
    architecture, weights = checkpoint.vae_architecture, checkpoint.weights("vae")

    def decoder() -> "nn.Module":
        from ..engine.models.vae import VaeDecoder

        return VaeDecoder(architecture)

    def encoder() -> "nn.Module":
        from ..engine.models.vae_encoder import VaeEncoder

        return VaeEncoder(architecture)

    halves = [("vae_decoder", architecture.decoder(), decoder)]
    if any(name.startswith("encoder.") for name in weights):
        halves.append(("vae_encoder", architecture.encoder(), encoder))
    return [
        Component(name=name, spec=spec, module=module, source="base.vae", configuration=architecture, part=weights)
        for name, spec, module in halves
    ]


def _tiny_decoder(source: TinyDecoderSource) -> Component:
    architecture = source.architecture

    def module() -> "nn.Module":
        from ..engine.models.tiny import TinyDecoder

        return TinyDecoder(architecture)

    return Component(
        name=TINY_DECODER,
        spec=architecture.decoder(),
        module=module,
        source=TINY_DECODER,
        configuration=architecture,
        part=source.weights,
    )
