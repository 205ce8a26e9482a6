"""What an unquantized run shows of a layer: the range of every channel, and some of the inputs themselves."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Self

import numpy as np
import numpy.typing as npt

from .rounded import Floats

Integers = npt.NDArray[np.integer]
Range = tuple[Floats, Floats]
"""The least and the most that each channel has been."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerStatistics:
    """One layer with a weight matrix, over all calls that were watched."""

    inputs: Floats
    """`[rows, in]`: sampled tokens, or a convolution's unfolded patches (in · height · width). Those with the extremes
    are among them, so that ranges over these rows are the ranges over all. Run after run."""
    rows: Integers
    """`[runs]`: how many of them each run has shown."""
    input_lows: Floats
    """`[runs, in channels]`: the smallest that each channel has been; likewise the next."""
    input_highs: Floats
    output_lows: Floats
    """`[runs, out channels]`"""
    output_highs: Floats
    output_energy: float
    """Mean square of the output."""
    count: int
    """Tokens or pixels that the layer computed."""

    @classmethod
    def of_run(
        cls, inputs: Floats, input_range: Range, output_range: Range, *, output_energy: float, count: int
    ) -> Self:
        """What one run shows; ranges are the least and the most of each channel."""
        (input_low, input_high), (output_low, output_high) = input_range, output_range
        return cls(
            inputs=inputs,
            rows=np.array([len(inputs)]),
            input_lows=input_low[None],
            input_highs=input_high[None],
            output_lows=output_low[None],
            output_highs=output_high[None],
            output_energy=output_energy,
            count=count,
        )

    @property
    def input_range(self) -> Range:
        """The least and the most of each input channel `[in channels]` over all runs."""
        return self.input_lows.min(0), self.input_highs.max(0)

    @property
    def output_range(self) -> Range:
        """The same of output channels."""
        return self.output_lows.min(0), self.output_highs.max(0)

    @property
    def input_size(self) -> Floats:
        """The largest magnitude of each input channel."""
        low, high = self.input_range
        size: Floats = np.maximum(np.abs(low), np.abs(high))
        return size

    @property
    def output_size(self) -> Floats:
        """The largest magnitude of each output channel."""
        low, high = self.output_range
        size: Floats = np.maximum(np.abs(low), np.abs(high))
        return size

    @property
    def taps(self) -> int:
        """Numbers of an input channel in a row: 1 for a linear layer, height · width for a convolution."""
        return int(self.inputs.shape[1] // self.input_lows.shape[1])

    def __add__(self, other: "LayerStatistics") -> "LayerStatistics":
        """Both as one run."""
        both = self.beside(other)
        return LayerStatistics.of_run(
            both.inputs, both.input_range, both.output_range, output_energy=both.output_energy, count=both.count
        )

    def beside(self, other: "LayerStatistics") -> "LayerStatistics":
        """The runs of both."""
        count = self.count + other.count
        energy = self.output_energy * self.count + other.output_energy * other.count
        return LayerStatistics(
            **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS},
            output_energy=energy / max(count, 1),
            count=count,
        )

    def scaled(self, inputs: Floats | None, outputs: Floats | None) -> "LayerStatistics":
        """The same layer if its input and output channels are multiplied by these positive factors (None: by 1)."""
        taken = np.ones_like(self.input_lows[0]) if inputs is None else inputs
        given = np.ones_like(self.output_lows[0]) if outputs is None else outputs
        return replace(
            self,
            inputs=self.inputs * np.repeat(taken, self.taps),
            input_lows=self.input_lows * taken,
            input_highs=self.input_highs * taken,
            output_lows=self.output_lows * given,
            output_highs=self.output_highs * given,
        )


_ARRAYS = ("inputs", "rows", "input_lows", "input_highs", "output_lows", "output_highs")


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """The layers of one component."""

    layers: Mapping[str, LayerStatistics] = field(default_factory=dict)
    """By names in the checkpoint's form; of layers that read the same tensor each has its own, with shared arrays."""
    streams: Mapping[str, Floats] = field(default_factory=dict)
    """Norm → mean squares of what it reads, one a call."""

    def __add__(self, other: "Calibration") -> "Calibration":
        """Both as one run; layers that share their inputs go on sharing them."""
        return self._joined(other, operator.add)

    def beside(self, other: "Calibration") -> "Calibration":
        """The runs of both; layers that share their inputs go on sharing them."""
        return self._joined(other, LayerStatistics.beside)

    def _joined(
        self, other: "Calibration", join: Callable[[LayerStatistics, LayerStatistics], LayerStatistics]
    ) -> "Calibration":
        joined: dict[tuple[int, int], Floats] = {}
        layers = dict(self.layers)
        for name, new in other.layers.items():
            old = layers.get(name)
            if old is None:
                layers[name] = new
                continue
            both = join(old, new)
            inputs = joined.setdefault((id(old.inputs), id(new.inputs)), both.inputs)
            layers[name] = replace(both, inputs=inputs)
        streams = dict(self.streams)
        for name, energies in other.streams.items():
            streams[name] = np.concatenate([streams[name], energies]) if name in streams else energies
        return Calibration(layers=layers, streams=streams)

    @classmethod
    def over(cls, parts: Iterable["Calibration"]) -> "Calibration":
        """All of them as one run, in their order."""
        return reduce(operator.add, parts, cls())

    @classmethod
    def of_runs(cls, runs: Iterable["Calibration"]) -> "Calibration":
        """All of them as runs of their own, whose differences say what runs that nobody watched may be like."""
        return reduce(cls.beside, runs, cls())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for `store`, inputs that layers share once: others have the name, in bytes, of the first."""
        arrays: dict[str, np.ndarray] = {f"stream|{name}": array for name, array in self.streams.items()}
        owners: dict[int, str] = {}
        for name, layer in self.layers.items():
            owner = owners.setdefault(id(layer.inputs), name)
            for part in fields(layer):
                shared = part.name == "inputs" and owner != name
                value = np.frombuffer(owner.encode(), np.uint8) if shared else np.asarray(getattr(layer, part.name))
                arrays[f"layer|{name}|{part.name}"] = value
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
            if parts["inputs"].dtype == np.uint8:
                parts["inputs"] = values[parts["inputs"].tobytes().decode()]["inputs"]
        layers = {
            name: LayerStatistics(
                **{n: parts[n] for n in _ARRAYS},
                output_energy=float(parts["output_energy"]),
                count=int(parts["count"]),
            )
            for name, parts in values.items()
        }
        return cls(layers=layers, streams=streams)
