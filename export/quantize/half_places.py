"""Where a VAE's tensors can be scaled as wholes without changing what it computes: a walk over its names.

Behind a group norm no constant factor is left, if its eps has the factor's square; behind a layer without a norm the
next weight takes it back. So each place has a factor of its own: the residual stream, anew behind every layer that all
of it goes through, the inside of every ResNet, and the attention's values and queries.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tensor, or several that are added up, and all that stands around it; layers and norms by their names."""

    writers: tuple[str, ...]
    """Layers whose outputs, added up, it is."""
    readers: tuple[str, ...] = ()
    """Layers that take it as it is."""
    norms: tuple[str, ...] = ()
    """Group norms that take it."""
    against: tuple[str, ...] = ()
    """Layers whose outputs are multiplied with it: keys, where it is queries."""


@dataclass(kw_only=True)
class _Stream:
    """A part of the residual stream that is not over yet."""

    writers: list[str]
    norms: list[str] = field(default_factory=list)

    def until(self, *readers: str) -> Place:
        return Place(writers=tuple(self.writers), norms=tuple(self.norms), readers=readers)


_BLOCK = r"{half}\.(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(?:resnets|attentions|(?:down|up)samplers)\.\d+"
_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2, "resnets": 0, "attentions": 1}


def find_places(names: Collection[str]) -> list[Place]:
    """The places of an autoencoder with parameters of these names, or of the half of one; none of other networks.

    Every layer but a half's last one writes to one place.
    """
    modules = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    found = [
        Place(writers=(writer,), readers=(reader,))
        for writer, reader in (("encoder.conv_out", "quant_conv"), ("post_quant_conv", "decoder.conv_in"))
        if modules >= {writer, reader}
    ]
    for half in ("encoder", "decoder"):
        if f"{half}.conv_norm_out" in modules:
            found += _half(half, modules)
    return found


def _half(half: str, modules: Collection[str]) -> Iterator[Place]:
    stream = _Stream(writers=[f"{half}.conv_in"])
    for block in _blocks(half, modules):
        if ".resnets." in block:
            stream.norms.append(f"{block}.norm1")
            yield Place(writers=(f"{block}.conv1",), norms=(f"{block}.norm2",))
            if f"{block}.conv_shortcut" in modules:
                yield stream.until(f"{block}.conv_shortcut")
                stream = _Stream(writers=[f"{block}.conv_shortcut"])
            stream.writers.append(f"{block}.conv2")
        elif ".attentions." in block:
            stream.norms.append(f"{block}.group_norm")
            yield Place(writers=(f"{block}.to_q",), against=(f"{block}.to_k",))
            yield Place(writers=(f"{block}.to_v",), readers=(f"{block}.to_out.0",))
            stream.writers.append(f"{block}.to_out.0")
        else:
            yield stream.until(f"{block}.conv")
            stream = _Stream(writers=[f"{block}.conv"])
    stream.norms.append(f"{half}.conv_norm_out")
    yield stream.until()


def _blocks(half: str, modules: Collection[str]) -> list[str]:
    """The blocks of a half in running order, but for the middle's attention, which leaves the stream as it finds it."""
    pattern = re.compile(_BLOCK.format(half=half))
    found = {match[0] for module in modules if (match := pattern.match(module))}
    return sorted(found, key=_running_order)


def _running_order(block: str) -> list[int]:
    return [int(part) if part.isdecimal() else _ORDER.get(part, 2) for part in block.split(".")]
