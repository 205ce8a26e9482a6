"""Where channels can be scaled without changing what a network computes: a table of places, found by names.

Between the layer that writes a channel and those that read it stand only operations that a factor goes through: a
norm's own affine, attention (values), the product with a gate. Names are those of the checkpoint's form.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Site:
    """Channels that `writers` write and `readers` read, and nothing else."""

    writers: tuple[str, ...]
    """Parameters whose first rows are these channels."""
    readers: tuple[str, ...]
    """Layers whose inputs they are."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Queries and keys: what multiplies a channel of the one may divide it in the other."""

    query: tuple[str, ...]
    """Parameters of the layer that writes queries, its weight first; likewise the next."""
    key: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Rule:
    writer: str
    """A regular expression of a module's whole name; its first group stands for `{0}`."""
    readers: tuple[str, ...]


_RULES = (
    # SDXL's transformer blocks
    _Rule(
        writer=r"(.*\.transformer_blocks\.\d+)\.norm1", readers=("{0}.attn1.to_q", "{0}.attn1.to_k", "{0}.attn1.to_v")
    ),
    _Rule(writer=r"(.*\.transformer_blocks\.\d+)\.norm2", readers=("{0}.attn2.to_q",)),
    _Rule(writer=r"(.*\.transformer_blocks\.\d+)\.norm3", readers=("{0}.ff.net.0.proj",)),
    # The first half of its rows are values, the second one goes through GELU into their gate.
    _Rule(writer=r"(.*\.transformer_blocks\.\d+)\.ff\.net\.0\.proj", readers=("{0}.ff.net.2",)),
    _Rule(writer=r"(.*\.attn[12])\.to_v", readers=("{0}.to_out.0",)),
    _Rule(writer=r"(.*\.attentions\.\d+)\.norm", readers=("{0}.proj_in",)),
    # the VAE's attention
    _Rule(writer=r"(.*\.attentions\.\d+)\.group_norm", readers=("{0}.to_q", "{0}.to_k", "{0}.to_v")),
    _Rule(writer=r"(.*\.attentions\.\d+)\.to_v", readers=("{0}.to_out.0",)),
    # CLIP
    _Rule(
        writer=r"(.*\.layers\.\d+)\.layer_norm1",
        readers=("{0}.self_attn.q_proj", "{0}.self_attn.k_proj", "{0}.self_attn.v_proj"),
    ),
    _Rule(writer=r"(.*\.layers\.\d+)\.layer_norm2", readers=("{0}.mlp.fc1",)),
    _Rule(writer=r"(.*\.self_attn)\.v_proj", readers=("{0}.out_proj",)),
)
_PAIRS = ((r"(.*\.attn[12])\.to_q", "{0}.to_k"), (r"(.*\.self_attn)\.q_proj", "{0}.k_proj"))


def find_sites(names: Collection[str]) -> Iterator[Site]:
    """The sites among parameters of these names, in the order of the names."""
    present = set(names)
    for module in _modules(names):
        for rule in _RULES:
            found = re.fullmatch(rule.writer, module)
            readers = tuple(reader.format(found[1]) for reader in rule.readers) if found else ()
            if readers and all(f"{reader}.weight" in present for reader in readers):
                yield Site(writers=_parameters(module, present), readers=readers)


def find_pairs(names: Collection[str]) -> Iterator[Pair]:
    """The pairs of queries and keys among parameters of these names."""
    present = set(names)
    for module in _modules(names):
        for pattern, key in _PAIRS:
            found = re.fullmatch(pattern, module)
            if found and f"{key.format(found[1])}.weight" in present:
                yield Pair(query=_parameters(module, present), key=_parameters(key.format(found[1]), present))


def _modules(names: Collection[str]) -> list[str]:
    return [name.removesuffix(".weight") for name in names if name.endswith(".weight")]


def _parameters(module: str, present: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in (f"{module}.weight", f"{module}.bias") if name in present)
