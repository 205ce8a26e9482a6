"""Statistics of layers, gathered while the unquantized network denoises real prompts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..quantize.calibration import Calibration, LayerStatistics

if TYPE_CHECKING:
    from .streamed import StreamedModule

ROWS = 128
"""Of inputs, kept of each layer over all calls: enough to tell formats and rules apart. Base and refiner of SDXL have a
gigabyte of them."""
_GOLDEN = (5**0.5 - 1) / 2


class Watch:
    """What the layers of a module have shown since `take` was last called, which is to be called after each call."""

    def __init__(self, rows: int) -> None:
        """`rows`: sampled inputs of a layer in each call."""
        self.rows = rows
        self.before = 0
        """Calls, or rows of them, before the next: each looks at other places than those before it."""
        self._layers: dict[str, LayerStatistics] = {}
        self._streams: dict[str, list[float]] = {}
        self._sampled: list[tuple[Any, Any]] = []

    def take(self) -> Calibration:
        """What was seen, which is then forgotten."""
        streams = {name: np.array(energies, np.float32) for name, energies in self._streams.items()}
        seen = Calibration(layers=dict(self._layers), streams=streams)
        self._layers, self._streams, self._sampled = {}, {}, []
        return seen

    def layer(self, name: str) -> Any:
        """A forward hook for a linear layer or a convolution."""

        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            import torch

            x = inputs[0]
            convolution = isinstance(module, torch.nn.Conv2d)
            channel_axis = 1 if convolution else -1
            new = LayerStatistics.of_run(
                self._sample(module, x, output),
                _range(x, channel_axis),
                _range(output, channel_axis),
                output_energy=_energy(output),
                count=output.numel() // output.shape[channel_axis],
            )
            old = self._layers.get(name)
            self._layers[name] = new if old is None else old + new

        return hook

    def norm(self, name: str) -> Any:
        """A forward hook for a normalisation layer."""

        def hook(_: Any, inputs: tuple[Any, ...], __: Any) -> None:
            self._streams.setdefault(name, []).append(_energy(inputs[0]))

        return hook

    def _sample(self, module: Any, x: Any, output: Any) -> np.ndarray:
        """Rows of the layer's input; of an input that another layer has just read, the same array."""
        import torch

        if isinstance(module, torch.nn.Conv2d):
            return _patches(module, x, output, self.rows, self.before)
        for tensor, rows in self._sampled:
            if tensor is x:
                return rows  # type: ignore[no-any-return]
        flat = x.reshape(-1, x.shape[-1])
        rows = flat[_chosen(flat.amax(1), flat.amin(1), self.rows, self.before)].numpy().copy()
        self._sampled = [*self._sampled[-3:], (x, rows)]
        return rows  # type: ignore[no-any-return]


@contextmanager
def watch(module: "StreamedModule", rows: int) -> Iterator[Watch]:
    """While the block runs, gather statistics of every linear layer, convolution and norm."""
    from torch import nn

    seen = Watch(rows)
    handles = []
    for name, child in module.module.named_modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            handles.append(child.register_forward_hook(seen.layer(name)))
        elif isinstance(child, nn.LayerNorm | nn.GroupNorm):
            handles.append(child.register_forward_hook(seen.norm(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _range(x: Any, channel_axis: int) -> tuple[np.ndarray, np.ndarray]:
    channels = x.movedim(channel_axis, -1).reshape(-1, x.shape[channel_axis])
    return channels.amin(0).numpy().copy(), channels.amax(0).numpy().copy()


def _energy(x: Any) -> float:
    """The mean square, without a second tensor of that size."""
    import torch

    size = float(torch.linalg.vector_norm(x))
    return size * size / int(x.numel())


def _chosen(highest: Any, lowest: Any, rows: int, before: int) -> Any:
    """Indices of rows: spread by the golden ratio, and one of those that hold the largest number, and the smallest.

    Evenly spaced ones would be the same in every call, and of the four places of a pixel in a picture of twice the size
    some more often than others: what a convolution behind such a resizing reads differs from one to the next.
    """
    import torch

    count = len(highest)
    if count <= rows:
        return torch.arange(count)
    steps = torch.arange(max(rows - 2, 1), dtype=torch.float64) + before * rows
    spread = (steps * _GOLDEN % 1 * count).long()
    extremes = [_one_of(highest == highest.amax(), before), _one_of(lowest == lowest.amin(), before)]
    return torch.cat([spread, *extremes])[:rows]


def _one_of(alike: Any, before: int) -> Any:
    """The index of one that is true, another one in other calls; the first of all if none is, as among NaN."""
    found = alike.nonzero()[:, 0]
    return found[int(before * _GOLDEN % 1 * len(found))][None] if len(found) else found.new_zeros(1)


def _patches(conv: Any, x: Any, output: Any, rows: int, before: int) -> np.ndarray:
    """Sampled patches of a convolution's input `[rows, in · height · width]`, as `weight.flatten(1)` takes them."""
    import torch
    import torch.nn.functional as F

    (height, width), (down, right), (top, left) = conv.kernel_size, conv.stride, conv.padding
    across = output.shape[3]
    per_picture = output.shape[2] * across
    # The pixels where the input is largest and smallest lie in the patches around them.
    highest = F.adaptive_max_pool2d(x.amax(1), output.shape[2:]).flatten()
    lowest = -F.adaptive_max_pool2d(-x.amin(1), output.shape[2:]).flatten()
    found = []
    for index in _chosen(highest, lowest, rows, before).tolist():
        picture, place = divmod(index, per_picture)
        row, column = divmod(place, across)
        found.append(_patch(x[picture], row * down - top, column * right - left, height, width))
    patches: np.ndarray = torch.stack(found).flatten(1).numpy().copy()
    return patches


def _patch(x: Any, top: int, left: int, height: int, width: int) -> Any:
    """The part of `x [channels, H, W]` at that place, zeros beyond its edge."""
    import torch.nn.functional as F

    bottom, right = top + height, left + width
    inside = x[:, max(top, 0) : bottom, max(left, 0) : right]
    return F.pad(inside, (max(-left, 0), max(right - x.shape[2], 0), max(-top, 0), max(bottom - x.shape[1], 0)))
