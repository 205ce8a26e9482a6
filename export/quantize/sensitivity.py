"""How much of a layer's own error arrives at the end of the network: the share of its branch in the stream it joins.

A U-Net and a text encoder are streams that branches read from and add to. An error of one percent in a branch that is a
tenth of the stream behind it is an error of a tenth of a percent there, and what adds to the stream is not undone by
what follows. The shares are energies (mean squares), measured in the unquantized run.
"""

import re
from dataclasses import dataclass

from .calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class _Branch:
    layers: str
    """A regular expression of whole layer names; its first group stands for `{0}`."""
    last: str
    """The layer whose output is added to the stream."""
    norm: str
    """Reads the stream that it is added to."""


_BRANCHES = (
    _Branch(layers=r"(.*\.transformer_blocks\.\d+)\.attn1\..*", last="{0}.attn1.to_out.0", norm="{0}.norm1"),
    _Branch(layers=r"(.*\.transformer_blocks\.\d+)\.attn2\..*", last="{0}.attn2.to_out.0", norm="{0}.norm2"),
    _Branch(layers=r"(.*\.transformer_blocks\.\d+)\.ff\..*", last="{0}.ff.net.2", norm="{0}.norm3"),
    _Branch(layers=r"(.*\.attentions\.\d+)\.(?:transformer_blocks|proj_).*", last="{0}.proj_out", norm="{0}.norm"),
    _Branch(layers=r"(.*\.attentions\.\d+)\.to_.*", last="{0}.to_out.0", norm="{0}.group_norm"),
    _Branch(layers=r"(.*\.resnets\.\d+)\.conv[12]", last="{0}.conv2", norm="{0}.norm1"),
    _Branch(layers=r"(.*\.layers\.\d+)\.self_attn\..*", last="{0}.self_attn.out_proj", norm="{0}.layer_norm1"),
    _Branch(layers=r"(.*\.layers\.\d+)\.mlp\..*", last="{0}.mlp.fc2", norm="{0}.layer_norm2"),
)


def share(layer: str, seen: Calibration) -> float:
    """From 0 to 1, of energies; branches within branches multiply. 1 for a layer that stands in the stream itself."""
    found = 1.0
    for branch in _BRANCHES:
        match = re.fullmatch(branch.layers, layer)
        if match is None:
            continue
        last, stream = seen.layers.get(branch.last.format(match[1])), seen.streams.get(branch.norm.format(match[1]))
        if last is not None and stream is not None:
            whole = last.output_energy + float(stream.mean())
            found *= last.output_energy / whole if whole else 1.0
    return found
