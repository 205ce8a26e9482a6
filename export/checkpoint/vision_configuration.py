"""transformers' `CLIPVisionConfig` → the numbers of our image encoder."""

from collections.abc import Mapping
from typing import Any

from ...engine.architecture import Activation
from ...engine.errors import IncompatibleError
from ...engine.image_prompt import VISION, VisionArchitecture
from .configuration import JsonFile, Option, shown

DEFAULTS: Mapping[str, int | float] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
}
OPTIONS = {
    name: Option(default=default, least=type(default)(VISION[name][0]), most=type(default)(VISION[name][1]))
    for name, default in DEFAULTS.items()
}
MODELS = ("clip_vision_model", "clip")


def vision_architecture(file: JsonFile) -> VisionArchitecture:
    """The numbers of a CLIP image encoder; `IncompatibleError` for another kind of model.

    A whole CLIP model's have those of its image encoder under `vision_config`.
    """
    data = file.data
    if data.get("model_type") not in MODELS:
        raise IncompatibleError(
            f"{file.path} is no CLIP image encoder: its model_type is {shown(data.get('model_type'))}, "
            f"{' or '.join(map(repr, MODELS))} is allowed"
        )
    inner = data.get("vision_config")
    if isinstance(inner, dict):
        file = JsonFile(data={"projection_dim": data.get("projection_dim"), **inner}, path=file.path)
    numbers: dict[str, Any] = {key: file.number(OPTIONS, key) for key in OPTIONS}
    activation = file.said("hidden_act", Activation.QUICK_GELU.value)
    if activation not in list(Activation):
        raise file.refuse("hidden_act", activation, " or ".join(Activation))
    if file.said("num_channels", 3) != 3:
        raise file.refuse("num_channels", file.data["num_channels"], "3")
    file.divided("hidden_size", [numbers["hidden_size"]], "num_attention_heads", numbers["num_attention_heads"])
    file.divided("image_size", [numbers["image_size"]], "patch_size", numbers["patch_size"])
    return VisionArchitecture(**numbers, hidden_act=Activation(activation))
