"""transformers' `CLIPTextConfig` → the numbers of our text encoder."""

from collections.abc import Mapping

from ...engine.architecture import Activation, TextEncoderArchitecture
from ...engine.errors import IncompatibleError
from .configuration import ALLOWED, MOST_CHANNELS, JsonFile, Option, shown
from .families import TextRow

MOST_WORDS = 1 << 20
OPTIONS: Mapping[str, Option] = {
    "eos_token_id": Option(default=49407, least=0, most=MOST_WORDS),
    "hidden_size": Option(default=512, least=1, most=MOST_CHANNELS),
    "intermediate_size": Option(default=2048, least=1, most=MOST_CHANNELS),
    "layer_norm_eps": Option(default=1e-5, least=1e-12, most=1.0),
    "max_position_embeddings": Option(default=77, least=3, most=1024),
    "num_attention_heads": Option(default=8, least=1, most=1024),
    # The one before the last is read.
    "num_hidden_layers": Option(default=12, least=2, most=64),
    "projection_dim": Option(default=512, least=1, most=MOST_CHANNELS),
    "vocab_size": Option(default=49408, least=1, most=MOST_WORDS),
}


def text_encoder_architecture(file: JsonFile, row: TextRow) -> TextEncoderArchitecture:
    """The numbers of a text encoder that a model uses as `row` says; `IncompatibleError` for another kind of one."""
    kind = file.data.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise IncompatibleError(f"{file.path} configures a {shown(kind)}; SDXL has CLIP text encoders. {ALLOWED}")
    numbers = {key: file.number(OPTIONS, key) for key in OPTIONS}
    activation = file.said("hidden_act", Activation.QUICK_GELU)
    if not isinstance(activation, str) or activation not in list(Activation):
        raise file.refuse("hidden_act", activation, " or ".join(Activation))
    width, heads = numbers["hidden_size"], numbers["num_attention_heads"]
    file.divided("hidden_size", [width], "num_attention_heads", heads)
    if numbers["eos_token_id"] >= numbers["vocab_size"]:
        raise file.refuse("eos_token_id", numbers["eos_token_id"], f"an id below vocab_size, {numbers['vocab_size']},")
    if not row.pooled:
        numbers["projection_dim"] = 0
    return TextEncoderArchitecture(**numbers, hidden_act=Activation(activation), output=row.output)
