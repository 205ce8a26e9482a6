"""Whether a component's tensors are those that its configuration asks for: none left over, no layer missing.

A wrong configuration beside good weights otherwise gives wrong pictures without a word: the layers that it does not
name are passed over.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ...engine.architecture import TextEncoderArchitecture
from ...engine.errors import IncompatibleError
from ...engine.original_names import unet_places
from .original_layout import mismatch, vae_places
from .settings import Settings

ATTENTION = tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out"))
CLIP_LAYER = (*ATTENTION, "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
CLIP = ("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm")
HARMLESS = ("position_ids", "logit_scale")
"""How names of tensors end that say nothing: a list of numbers from 0 up, and the temperature of CLIP's training."""
OTHER_HALVES = ("vision_model.", "visual_projection.")
"""How names of CLIP's other half begin, which whole CLIP models have beside their text encoder."""
SCALES = (".scale_weight", ".weight_scale", ".weight_scale_inv", ".scale_input", ".input_scale", ".comfy_quant")
SCALED = "scaled_fp8"
"""Marks of files whose 8-bit numbers are to be multiplied by scales that lie beside them."""
OPTIONAL = ("conv_shortcut",)


def says_nothing(name: str) -> bool:
    """Whether a tensor of that name may be passed over."""
    return name.endswith(HARMLESS) or name.startswith(OTHER_HALVES)


def refuse_scaled(names: Iterable[str], source: Path) -> None:
    """`IncompatibleError` for weights whose true values are products with scales that are kept beside them."""
    for name in names:
        if name.endswith(SCALES) or name.rsplit(".", 1)[-1] == SCALED:
            raise IncompatibleError(
                f"{source} is quantized with scales ({name}), which PocketXL does not apply; take the same checkpoint "
                "in 16 bits, or in plain float8"
            )


def take_stock(component: str, names: Iterable[str], settings: Settings, source: Path) -> None:
    """`IncompatibleError` for a tensor without a place, and for a layer of the U-Net or a text encoder without one."""
    modules = _modules(component, settings)
    hold_to(component, names, modules, _needed(component, modules), source)


def hold_to(
    what: str,
    names: Iterable[str],
    modules: Collection[str],
    needed: Collection[str],
    source: Path,
    *,
    mismatch: Callable[[Path, str], IncompatibleError] = mismatch,
) -> None:
    """`IncompatibleError` for a tensor in none of `modules`, and for one of `needed` that has none.

    Shortcuts may be lacking. `mismatch` makes the error.
    """
    seen: set[str] = set()
    for name in names:
        parts = name.split(".")
        above = {".".join(parts[:cut]) for cut in range(1, len(parts))}
        if above.isdisjoint(modules):
            raise mismatch(source, f"{what} has {name}, for which the configuration has no place")
        seen |= above
    lacking = next((m for m in sorted(needed) if m not in seen and not m.endswith(OPTIONAL)), None)
    if lacking is not None:
        raise mismatch(source, f"{what} lacks {lacking}, which the configuration asks for")


def _modules(component: str, settings: Settings) -> set[str]:
    """The paths of all modules that may have tensors."""
    if component == "unet":
        return set(unet_places(settings.unet_architecture).values())
    if component == "vae":
        return set(vae_places(settings.vae_architecture).values())
    return clip_modules(settings.text_encoder_architecture(component))


def clip_modules(architecture: TextEncoderArchitecture) -> set[str]:
    """Every module of a CLIP text encoder, the projection included."""
    layers = {f"encoder.layers.{i}.{part}" for i in range(architecture.num_hidden_layers) for part in CLIP_LAYER}
    return {f"text_model.{name}" for name in (*CLIP, *layers)} | {"text_projection"}


def _needed(component: str, modules: set[str]) -> set[str]:
    """Those of `modules` whose absence tells another size; what is missing besides is found by each tensor's name."""
    if component == "unet":
        return {module for module in modules if not module.endswith(OPTIONAL)}
    return {module for module in modules if ".encoder.layers." in module} if component != "vae" else set()
