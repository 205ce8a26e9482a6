"""What turns latents into pictures: the VAE, or an engine's tiny decoder."""

from collections.abc import Mapping

from ..architecture import Models
from ..errors import RequestError
from ..tiny import TINY_DECODER
from .limits import short_text, show

FULL, TINY = "full", "tiny"
DECODERS: Mapping[str, str] = {FULL: "vae_decoder", TINY: TINY_DECODER}
"""What a caller names → the component that it is."""
SETTING = "VAE Decoder"
LABELS: Mapping[str, str] = {FULL: "Full", TINY: "TAESD"}
"""As AUTOMATIC1111 writes them behind `SETTING` into pictures."""


def checked_decoder(value: object, models: Models) -> str:
    """The decoder's name. Raises `RequestError` for another one, and for one that the engine was built without."""
    name = short_text("decoder", value)
    if name not in DECODERS:
        raise RequestError(f"decoder is {show(value)}; choose {' or '.join(DECODERS)}")
    if name == TINY and models.tiny_decoder is None:
        raise RequestError("decoder is 'tiny', and this engine has none; build it with --tiny-decoder, or use 'full'")
    return name


def decoder_of(setting: str) -> str:
    """What a picture's settings call a decoder → its name; what is unknown stays as it is."""
    return next((name for name, label in LABELS.items() if label.lower() == setting.strip().lower()), setting)
