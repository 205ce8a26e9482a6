"""The reference of a tiny decoder: the latents that the run decoded, through the unquantized module.

It has no part in the run itself, so that one can be added to an engine whose reference is there.
"""

from dataclasses import replace

import numpy as np

from ...engine.folder.samples import Sample
from ...engine.tiny import TINY_DECODER
from ..components import Assembly
from .calibrate import ROWS, watch
from .run import Reference


def with_tiny_decoder(made: Reference, assembly: Assembly) -> Reference:
    """The same with the samples and the calibration of the tiny decoder, if the engine has one."""
    if assembly.tiny_decoder is None:
        return made
    from .streamed import StreamedModule

    component, tiny = assembly.components[TINY_DECODER], assembly.tiny_decoder.architecture
    vae = assembly.checkpoints["base"].vae_architecture
    factor = np.float32(vae.scaling_factor / tiny.scaling_factor)
    module = StreamedModule(component.module, component.spec, component.weights)
    latents = [{"latents": inputs["latents"] * factor} for inputs, _ in made.samples["vae_decoder"]]
    samples: list[Sample] = []
    with watch(module, -(-ROWS // len(latents))) as seen:
        for index, inputs in enumerate(latents):
            seen.before = index
            samples.append((inputs, module(inputs)))
        calibration = seen.take()
    return replace(
        made,
        samples={**made.samples, TINY_DECODER: samples},
        calibration={**made.calibration, TINY_DECODER: calibration},
    )
