"""Which layers have 8 bits instead of 4, within a budget of bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import KernelError

Bits = Literal[4, 8]
GROUP: Final = 64


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer costs in either format.

    `name`: of the layer. `parameters`: weights, the bias not counted. `channels`: output channels, each with a scale in
    8 bits. `error_4`: what the result suffers with this layer in 4 bits, in any unit that adds up over layers (such as
    a squared error of the output); not negative. `error_8`: the same with 8 bits.
    """

    name: str
    parameters: int
    channels: int = 0
    error_4: float
    error_8: float

    def size_bytes(self, bits: Bits, group: int = GROUP) -> int:
        """Bytes of weights and scales: a float16 for each group in 4 bits, a float32 for each channel in 8."""
        if bits == 4:
            return self.parameters // 2 + 2 * (self.parameters // group)
        return self.parameters + 4 * self.channels


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Bits by layer, the bytes that they take, and the sum of errors."""

    bits: dict[str, Bits]
    size_bytes: int
    error: float


def choose_bits(layers: Iterable[LayerCost], budget_bytes: int, group: int = GROUP) -> Mix:
    """Give 8 bits to the layers where they save the most error per byte, as far as the budget reaches.

    Greedy: a layer that no longer fits is passed over for later, smaller ones. The error is above the best possible one
    by at most what one layer saves.

    `layers`: all layers, with different names; equal savings per byte go by their order. `budget_bytes`: for weights
    and scales of all layers together. `group`: weights that share a scale in 4 bits.

    Raises `KernelError`: not even 4 bits everywhere fit, two layers have one name, or an error is negative or NaN.
    """
    layers = tuple(layers)
    bits: dict[str, Bits] = {layer.name: 4 for layer in layers}
    if len(bits) != len(layers):
        raise KernelError("two layers have the same name")
    for layer in layers:
        if not (layer.error_4 >= 0 and layer.error_8 >= 0):
            raise KernelError(f"{layer.name}: errors {layer.error_4} and {layer.error_8} must be at least 0")
    size = sum(layer.size_bytes(4, group) for layer in layers)
    if size > budget_bytes:
        raise KernelError(f"4 bits everywhere take {size} bytes, the budget is {budget_bytes}: raise it")
    error = sum(layer.error_4 for layer in layers)
    for layer in sorted(layers, key=lambda layer: -_saved_per_byte(layer, group)):
        more = layer.size_bytes(8, group) - layer.size_bytes(4, group)
        if layer.error_8 < layer.error_4 and size + more <= budget_bytes:
            bits[layer.name] = 8
            size += more
            error += layer.error_8 - layer.error_4
    return Mix(bits=bits, size_bytes=size, error=error)


def _saved_per_byte(layer: LayerCost, group: int) -> float:
    more = layer.size_bytes(8, group) - layer.size_bytes(4, group)
    return (layer.error_4 - layer.error_8) / max(more, 1)
