"""What colours latents have, by the unquantized VAE, for previews (`engine.preview`)."""

import numpy as np

from ...engine.preview import Colours, fit_colours, swatches
from ..components import Assembly


def latent_colours(assembly: Assembly) -> Colours:
    """One decode of 256 × 256 pixels, and a fit; with the weights read layer by layer."""
    from .streamed import StreamedModule

    component, vae = assembly.components["vae_decoder"], assembly.checkpoints["base"].vae_architecture
    latents = swatches(vae.latent_channels)
    decode = StreamedModule(component.module, component.spec, component.weights)
    return fit_colours(latents, decode({"latents": latents / np.float32(vae.scaling_factor)})["image"])
