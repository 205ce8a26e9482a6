"""The layout of diffusers' folders: a folder for each component, and names that changed from version to version."""

from collections.abc import Mapping

from ...engine.stored.header import StoredTensor
from .inventory import says_nothing
from .original_layout import as_linear
from .weights import Weights

STEMS: Mapping[str, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Component → what its file of weights is called."""
# What the VAE's attention was called before diffusers 0.17.
OLD_ATTENTION: Mapping[str, str] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def canonical(component: str, weights: Weights) -> Weights:
    """The weights of a component under one set of names, whichever version of the libraries wrote them."""
    named: dict[str, StoredTensor] = {}
    for old in weights:
        stored, name = weights.stored(old), old
        if says_nothing(name):
            continue
        if component.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection.")):
            name = f"text_model.{name}"
        if component == "unet":
            stored = as_linear(name, stored)
        if component == "vae" and ".attentions." in name:
            module, part, kind = name.rsplit(".", 2)
            name = f"{module}.{OLD_ATTENTION.get(part, part)}.{kind}"
            stored = stored.without_kernel()
        named[name] = stored
    return Weights(named)
