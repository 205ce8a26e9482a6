"""The tensors that a ControlNet-Union has besides a ControlNet's, under the names of `engine.models.union`."""

from collections.abc import Mapping

from ...engine.companion import ControlNetArchitecture
from ...engine.stored.header import StoredTensor
from .configuration import Config

TASKS = "task_embedding"
LAYERS = "transformer_layes"
_IN = ".attn.in_proj_"
_THIRDS = 3
"""Of queries, keys and values, one below the other."""


def union_modules(architecture: ControlNetArchitecture) -> set[str]:
    """The modules of a union's file that a ControlNet does not have; `task_embedding` is a tensor in none."""
    layers = {
        f"{LAYERS}.{i}.{part}"
        for i in range(architecture.fuser_layers)
        for part in ("attn", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
    }
    embedding = {f"control_add_embedding.linear_{i}" for i in (1, 2)}
    return {*layers, *embedding, "spatial_ch_projs"}


def as_union(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """A union's tensors by our names: of `in_proj` the rows of the values, and the tasks as a module's weight."""
    found = {}
    for name, stored in tensors.items():
        if name == TASKS:
            found[f"{TASKS}.weight"] = stored
        elif name.startswith(LAYERS) and _IN in name:
            third = stored.shape[0] // _THIRDS
            found[name.replace(_IN, ".attn.value.")] = stored.rows(2 * third, _THIRDS * third)
        else:
            found[name] = stored
    return found


def described(data: Config, tensors: Mapping[str, StoredTensor]) -> Config:
    """A ControlNet's configuration as that of a union, whose numbers its tensors tell."""
    layers = {name.split(".")[1] for name in tensors if name.startswith(f"{LAYERS}.")}
    kinds, width = tensors[TASKS].shape
    return {
        **data,
        "num_control_type": kinds,
        "num_trans_layer": len(layers),
        "num_trans_channel": width,
        "num_proj_channel": width,
    }
