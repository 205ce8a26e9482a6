"""`--keep`: layers that stay in floats whatever the recipe says, by the names that a missed gate prints.

base/unet:down_blocks.1.attentions.0.proj_in     one layer of one component
base/unet:*ff.net.2                              a pattern as in a shell
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..engine.architecture import UNetArchitecture
from ..engine.errors import RequestError
from .components import Component
from .quantize.attention_places import has_tokens
from .quantize.formats import Kind
from .quantize.recipes import Recipe

_SUGGESTED = 3


def keeping(
    recipe: Recipe,
    patterns: Sequence[str],
    components: Mapping[str, Component],
    suited: Callable[[Component], Recipe] | None = None,
) -> dict[str, Recipe]:
    """Component → the recipe, changed where the patterns name layers that it would quantize.

    `suited`: what becomes of the recipe for a component, where that may quantize more than the recipe says (None: no).
    So two spellings that come to the same layers make the same engine, with the same build key. Raises `RequestError`
    for a pattern that names no layer, with names that come close.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    if not patterns:  # spares a build that is up to date the import of torch
        return dict.fromkeys(components, recipe)
    layers = {f"{name}:{layer}": kind for name, one in components.items() for layer, kind in layers_of(one).items()}
    chosen: dict[str, list[tuple[Kind, str]]] = {}
    for pattern in patterns:
        matched = [full for full in layers if fnmatchcase(full, pattern)]
        if not matched:
            raise RequestError(f"--keep {pattern!r} names no layer; {_close(pattern, list(layers))}")
        for full in matched:
            name, _, layer = full.partition(":")
            own = recipe if suited is None else suited(components[name])
            if own.format(components[name].spec.role, layers[full], layer).quantized:
                chosen.setdefault(name, []).append((layers[full], layer))
    return {
        name: recipe.keeping(component.spec.role, chosen[name]) if name in chosen else recipe
        for name, component in components.items()
    }


def layers_of(component: Component) -> dict[str, Kind]:
    """The component's layers that hold a weight matrix, and self-attentions, by names in the checkpoint's form."""
    import torch
    from torch import nn

    from ..engine.models.blocks import SelfAttention

    kinds: dict[type[nn.Module], Kind] = {
        nn.Linear: Kind.LINEAR,
        nn.Conv2d: Kind.CONV,
        nn.Embedding: Kind.EMBEDDING,
        SelfAttention: Kind.ATTENTION,
    }
    with torch.device("meta"):
        module = component.module()
    return {name: kinds[type(layer)] for name, layer in module.named_modules() if type(layer) in kinds}


def heads_of(component: Component) -> dict[str, int]:
    """The self-attentions that may be in 8 bits, since they have enough tokens, and how many heads each has."""
    import torch

    from ..engine.models.blocks import SelfAttention

    if not isinstance(unet := component.configuration, UNetArchitecture):
        return {}
    with torch.device("meta"):
        module = component.module()
    return {
        name: layer.heads
        for name, layer in module.named_modules()
        if isinstance(layer, SelfAttention) and has_tokens(name, len(unet.block_out_channels), unet.sample_size)
    }


def _close(pattern: str, names: list[str]) -> str:
    text = pattern.strip("*")
    close = [name for name in names if text and text in name] or get_close_matches(pattern, names, n=_SUGGESTED)
    if not close:
        return f"names look like {names[0]!r}, and patterns like 'base/unet:*ff.net.2'"
    return f"did you mean {' or '.join(repr(name) for name in close[:_SUGGESTED])}?"
