"""How the layers of one component become numbers: everything that a target needs to know to lower them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine.specs import Role
from .attention_places import Numbers
from .formats import KEEP, Format, Kind
from .recipes import Recipe
from .rounded import Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class StaticRange:
    """Calibrated 8-bit ranges of a layer: `uint8 = round(x / scale[channel]) + zero`, both sides.

    A scale for each channel costs nothing: that of an input goes into the weights, that of an output into their scales.
    """

    input_scale: Floats
    """`[in]`"""
    input_zero: int
    output_scale: Floats
    """`[out]`"""
    output_zero: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantization:
    """The recipe's rules for a component of that role, and what was found out about its layers."""

    recipe: Recipe
    role: Role
    assigned: Mapping[str, Format] = field(default_factory=dict)
    """Layers that the recipe's rules do not decide, by their names in the checkpoint's form."""
    ranges: Mapping[str, StaticRange] = field(default_factory=dict)
    """Of the layers with static ranges."""
    input_scales: Mapping[str, Floats] = field(default_factory=dict)
    """`[in channels]` of the layers with signed inputs: `x / scale[channel]` is rounded to 8 bits."""
    attentions: Mapping[str, Numbers] = field(default_factory=dict)
    """Of attentions in 8 bits: how queries and keys are rounded, and in 8-bit floats values."""
    inputs: Mapping[str, Floats] = field(default_factory=dict)
    """Sampled inputs `[rows, in]` of layers (a convolution's: unfolded patches, in · height · width)."""

    instead: Mapping[Kind, Mapping[Format, Format]] = field(default_factory=dict)
    """What layers have in place of such a format, in a file for machines that lack it: more bits, never fewer."""

    def format(self, kind: Kind, name: str) -> Format:
        """The format of layer `name`, or of a part that a pass cut it into (`ff.net.0.proj.1`); never `KEEP`.

        An attention that has no numbers of its own is in floats.
        """
        if kind is Kind.ATTENTION and name not in self.attentions:
            return self.recipe.kept
        found = self._assigned(name) or self.recipe.format(self.role, kind, name)
        return self.instead.get(kind, {}).get(found, found)

    def input_scale(self, name: str) -> Floats | None:
        """Scales `[in channels]` of that layer's input, of its whole layer's if it is a part; None: there are none."""
        return self.input_scales.get(name, self.input_scales.get(_whole(name)))

    def _assigned(self, name: str) -> Format | None:
        for known in (name, _whole(name)):
            if known in self.assigned:
                format = self.assigned[known]
                return self.recipe.kept if format == KEEP else format
        return None

    def sampled(self, name: str) -> Floats | None:
        """Sampled inputs of that layer or of the layer that it is a part of; None: there are none."""
        return self.inputs.get(name, self.inputs.get(_whole(name)))


def _whole(name: str) -> str:
    """The layer that one of such a name would be a part of."""
    return re.sub(r"\.\d+$", "", name)
