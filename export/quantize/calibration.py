"""What an unquantized run shows of a layer: the range of every channel, and some of the inputs themselves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Self

import numpy as np

from .rounded import Floats

LEAST_ROOM, MOST_ROOM = 1.05, 2.0
_CHANNELS = 0.95
"""The share of channels that a run's room holds; a channel that hardly did anything elsewhere says nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerStatistics:
    """One layer with a weight matrix, over all calls that were watched."""

    inputs: Floats
    """`[rows, in]`: sampled tokens, or a convolution's unfolded patches (in · height · width). Those with the extremes
    are among them, so that ranges over these rows are the ranges over all."""
    input_low: Floats
    """`[in channels]`: the smallest that each channel has been; likewise the next."""
    input_high: Floats
    output_low: Floats
    """`[out channels]`"""
    output_high: Floats
    output_energy: float
    """Mean square of the output."""
    count: int
    """Tokens or pixels that the layer computed."""
    input_room: float = 1.0
    """How far beyond the ranges inputs may go in runs that were not watched; likewise the next. See `with_room`."""
    output_room: float = 1.0

    def __add__(self, other: "LayerStatistics") -> "LayerStatistics":
        """Both runs together."""
        count = self.count + other.count
        energy = self.output_energy * self.count + other.output_energy * other.count
        return LayerStatistics(
            inputs=np.concatenate([self.inputs, other.inputs]),
            input_low=np.minimum(self.input_low, other.input_low),
            input_high=np.maximum(self.input_high, other.input_high),
            output_low=np.minimum(self.output_low, other.output_low),
            output_high=np.maximum(self.output_high, other.output_high),
            output_energy=energy / max(count, 1),
            count=count,
            input_room=max(self.input_room, other.input_room),
            output_room=max(self.output_room, other.output_room),
        )

    def scaled(self, inputs: Floats | None, outputs: Floats | None) -> "LayerStatistics":
        """The same layer if its input and output channels are multiplied by these positive factors (None: by 1)."""
        taken = np.ones_like(self.input_low) if inputs is None else inputs
        given = np.ones_like(self.output_low) if outputs is None else outputs
        patch = self.inputs.shape[1] // len(taken)
        return LayerStatistics(
            inputs=self.inputs * np.repeat(taken, patch),
            input_low=self.input_low * taken,
            input_high=self.input_high * taken,
            output_low=self.output_low * given,
            output_high=self.output_high * given,
            output_energy=self.output_energy,
            count=self.count,
            input_room=self.input_room,
            output_room=self.output_room,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """The layers of one component."""

    layers: Mapping[str, LayerStatistics] = field(default_factory=dict)
    """By names in the checkpoint's form; of layers that read the same tensor each has its own, with shared arrays."""
    streams: Mapping[str, Floats] = field(default_factory=dict)
    """Norm → mean squares of what it reads, one a call."""

    def __add__(self, other: "Calibration") -> "Calibration":
        """Both runs together; layers that share their inputs go on sharing them."""
        joined: dict[tuple[int, int], Floats] = {}
        layers = dict(self.layers)
        for name, new in other.layers.items():
            old = layers.get(name)
            if old is None:
                layers[name] = new
                continue
            both = old + new
            inputs = joined.setdefault((id(old.inputs), id(new.inputs)), both.inputs)
            layers[name] = _with_inputs(both, inputs)
        streams = dict(self.streams)
        for name, energies in other.streams.items():
            streams[name] = np.concatenate([streams[name], energies]) if name in streams else energies
        return Calibration(layers=layers, streams=streams)

    @classmethod
    def over(cls, parts: Iterable["Calibration"]) -> "Calibration":
        """All of them together, in their order."""
        return reduce(lambda a, b: a + b, parts, cls())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for `store`, inputs that layers share once."""
        arrays: dict[str, np.ndarray] = {f"stream|{name}": array for name, array in self.streams.items()}
        owners: dict[int, str] = {}
        for name, layer in self.layers.items():
            owner = owners.setdefault(id(layer.inputs), name)
            for part in fields(layer):
                value = owner if part.name == "inputs" and owner != name else getattr(layer, part.name)
                arrays[f"layer|{name}|{part.name}"] = np.array(value)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of `to_arrays`, exact; `ValueError` or `KeyError` for other arrays."""
        streams = {n.removeprefix("stream|"): a for n, a in arrays.items() if n.startswith("stream|")}
        values: dict[str, dict[str, np.ndarray]] = {}
        for key, array in arrays.items():
            if key.startswith("layer|"):
                _, name, part = key.split("|")
                values.setdefault(name, {})[part] = array
        for parts in values.values():
            if parts["inputs"].dtype.kind == "U":
                parts["inputs"] = values[str(parts["inputs"])]["inputs"]
        layers = {
            name: LayerStatistics(
                **{n: parts[n] for n in ("inputs", "input_low", "input_high", "output_low", "output_high")},
                output_energy=float(parts["output_energy"]),
                count=int(parts["count"]),
                input_room=float(parts["input_room"]),
                output_room=float(parts["output_room"]),
            )
            for name, parts in values.items()
        }
        return cls(layers=layers, streams=streams)


def with_room(runs: Sequence[Calibration]) -> Calibration:
    """All runs together, and for each layer the most that one of them went beyond all others.

    Ranges of a few runs do not hold others: what one shows that the rest does not is what the next one may.
    """
    whole = Calibration.over(runs)
    layers = {}
    for name, layer in whole.layers.items():
        own = [run.layers[name] for run in runs if name in run.layers]
        layers[name] = replace(layer, input_room=_room(own, "input"), output_room=_room(own, "output"))
    return Calibration(layers=layers, streams=whole.streams)


def _room(runs: Sequence[LayerStatistics], side: str) -> float:
    if len(runs) < 2:
        return 1.0
    sizes = [np.maximum(np.abs(getattr(run, f"{side}_low")), np.abs(getattr(run, f"{side}_high"))) for run in runs]
    beyond = []
    for index, size in enumerate(sizes):
        others = np.max([other for place, other in enumerate(sizes) if place != index], axis=0)
        known = others > 0
        if known.any():
            beyond.append(float(np.quantile(size[known] / others[known], _CHANNELS)))
    return float(np.clip(max(beyond, default=1.0), LEAST_ROOM, MOST_ROOM))


def _with_inputs(layer: LayerStatistics, inputs: Floats) -> LayerStatistics:
    own = {part.name: getattr(layer, part.name) for part in fields(layer)}
    return LayerStatistics(**{**own, "inputs": inputs})
