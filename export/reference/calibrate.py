"""Ranges of activations, watched while the unquantized network denoises real prompts."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .streamed import StreamedModule

Extremes = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Smallest and largest input and output of every watched layer: `{layer: (in_lo, in_hi, out_lo, out_hi)}`."""

    ranges: Mapping[str, Extremes]

    def to_json(self) -> dict[str, Any]:
        """Plain data, which `store` keeps in the work folder."""
        return {"ranges": {name: list(values) for name, values in sorted(self.ranges.items())}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`, exact; `ValueError` or `KeyError` for other data."""
        ranges: dict[str, Extremes] = {}
        for name, (in_low, in_high, out_low, out_high) in data["ranges"].items():
            ranges[str(name)] = (float(in_low), float(in_high), float(out_low), float(out_high))
        return cls(ranges=ranges)


@contextmanager
def watch(module: "StreamedModule", layers: Collection[str]) -> Iterator[dict[str, Extremes]]:
    """While the block runs, keep the extremes of the named layers' inputs and outputs; yields them by layer."""
    ranges: dict[str, Extremes] = {}
    handles = [module.module.get_submodule(name).register_forward_hook(_watch(ranges, name)) for name in sorted(layers)]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def _watch(ranges: dict[str, Extremes], name: str) -> Any:
    def hook(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        seen = tuple(float(edge) for tensor in (inputs[0], output) for edge in tensor.aminmax())
        old = ranges.get(name, seen)
        ranges[name] = (min(old[0], seen[0]), max(old[1], seen[1]), min(old[2], seen[2]), max(old[3], seen[3]))

    return hook
