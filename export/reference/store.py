"""What the reference run has made so far, kept in the work folder: a killed build goes on at the next step.

A part for each picture, `{index}.safetensors` (picture and samples, as they were computed) and `{index}.json` (key,
sha256 of the arrays, ranges, counts), and one for each long call of the picture that is being made,
`{index}.{number}.safetensors` and `.json`. All are written durably and the description last. A part is used if key and
hash match and every part before it was used too; anything else is made again, for it costs time and nothing else.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...engine.errors import IntegrityError, StorageError
from ...engine.folder.durable import write_durably
from ...engine.folder.samples import Sample
from ...engine.folder.schema import decode, encode
from ...engine.specs import Arrays
from ..quantize.calibration import Calibration

T = TypeVar("T")
_ARRAYS = ".safetensors"
"""Thousands of small arrays, of which most are skipped: in a zip file each would cost a tenth of a millisecond."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one prompt left.

    `picture`: (H, W, 3) in [0, 1]; `samples`: the kept rows of each component's calls; `calibration`: what its layers
    showed; `rows`: those that each component has seen so far, in earlier pictures too.
    """

    picture: np.ndarray
    samples: Mapping[str, Sequence[Sample]]
    calibration: Mapping[str, Calibration]
    rows: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class KeptCall:
    """A component's outputs in one call, and what its layers showed in it."""

    component: str
    outputs: Arrays
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class _Description:
    key: str
    sha256: str
    component: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)


class ReferenceStore:
    """The parts in `folder` that were made for `key`."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key

    def read(self, index: int) -> Part | None:
        """The part of prompt `index`, or None: absent, of another build, or damaged."""
        found = self._read(str(index))
        try:
            return None if found is None else _part(*found)
        except (ValueError, KeyError, IndexError):
            return None

    def read_samples(self, index: int, name: str) -> list[Sample]:
        """Those of one component in a part that `read` has found or `write` has kept; nothing else is read.

        Raises `StorageError` where it is gone or damaged by now.
        """
        return self._of_component(index, f"sample|{name}", _samples)

    def read_calibration(self, index: int, name: str) -> Calibration:
        """What its layers showed there; likewise."""
        return self._of_component(index, f"seen|{name}", Calibration.from_arrays)

    def _of_component(self, index: int, group: str, made: Callable[[dict[str, np.ndarray]], T]) -> T:
        from safetensors import SafetensorError, safe_open

        path = self._folder / f"{index}{_ARRAYS}"
        try:
            with safe_open(path, framework="np") as arrays:
                return made({key: arrays.get_tensor(f"{group}|{key}") for key in _names(arrays.keys(), group)})
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise StorageError(f"{path} was altered while it was in use: {error}; start the build again") from error

    def write(self, index: int, part: Part) -> None:
        """Keep one part, in place of the calls that it was made of."""
        self._write(str(index), _arrays(part), rows=part.rows, samples=_counts(part))
        self._remove(f"{index}.*.json")

    def read_call(self, index: int, number: int) -> KeptCall | None:
        """Call `number` of prompt `index`, or None: absent, of another build, or damaged."""
        found = self._read(f"{index}.{number}")
        if found is None or not found[0].component:
            return None
        described, arrays = found
        try:
            outputs, seen = _split(arrays, "output"), _split(arrays, "seen")
            return KeptCall(component=described.component, outputs=outputs, calibration=Calibration.from_arrays(seen))
        except (ValueError, KeyError):
            return None

    def write_call(self, index: int, number: int, call: KeptCall) -> None:
        """Keep one call."""
        arrays = _joined(output=call.outputs, seen=call.calibration.to_arrays())
        self._write(f"{index}.{number}", arrays, component=call.component)

    def read_arrays(self, name: str) -> dict[str, dict[str, np.ndarray]] | None:
        """Groups of arrays that were kept under a name, or None: absent, of another build, or damaged."""
        found = self._read(name)
        if found is None:
            return None
        return {group: _split(found[1], group) for group in dict.fromkeys(key.split("|")[0] for key in found[1])}

    def write_arrays(self, name: str, **groups: Arrays) -> None:
        """Keep them."""
        self._write(name, _joined(**groups))

    def calls(self, index: int) -> int:
        """How many calls of prompt `index` are kept."""
        return next(number for number in count() if self._read(f"{index}.{number}") is None)

    def _read(self, name: str) -> tuple[_Description, dict[str, np.ndarray]] | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            described = self._described(self._folder / f"{name}.json")
            content = (self._folder / f"{name}{_ARRAYS}").read_bytes()
            if described.key != self._key or hashlib.sha256(content).hexdigest() != described.sha256:
                return None
            return described, load(content)
        except (OSError, ValueError, KeyError, RecursionError, IntegrityError, SafetensorError):
            return None

    def _write(
        self,
        name: str,
        arrays: Arrays,
        *,
        component: str = "",
        rows: Mapping[str, int] | None = None,
        samples: Mapping[str, int] | None = None,
    ) -> None:
        """Arrays and description of one part; the first one clears what other builds left."""
        from safetensors.numpy import save

        self._remove("*.json", others=True)
        content = save({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()})
        described = _Description(
            key=self._key,
            sha256=hashlib.sha256(content).hexdigest(),
            component=component,
            rows=rows or {},
            samples=samples or {},
        )
        write_durably(self._folder / f"{name}{_ARRAYS}", content)
        write_durably(self._folder / f"{name}.json", json.dumps(encode(described)).encode())

    def _remove(self, pattern: str, *, others: bool = False) -> None:
        """Remove parts, with `others` only those of other keys and damaged ones."""
        for path in self._folder.glob(pattern):
            if not (others and self._ours(path)):
                path.unlink(missing_ok=True)  # a build beside, which keeps the same run, may have
                path.with_suffix(_ARRAYS).unlink(missing_ok=True)

    def _ours(self, path: Path) -> bool:
        try:
            return self._described(path).key == self._key
        except (OSError, ValueError, RecursionError, IntegrityError):
            return False

    def _described(self, path: Path) -> _Description:
        return decode(_Description, json.loads(path.read_bytes()), path.name)


def _counts(part: Part) -> dict[str, int]:
    return {name: len(samples) for name, samples in part.samples.items()}


def _joined(**groups: Arrays) -> dict[str, np.ndarray]:
    """Arrays of several groups in one, their names behind the group's."""
    return {f"{group}|{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def _split(arrays: Arrays, group: str) -> dict[str, np.ndarray]:
    """The arrays of one group, under their own names."""
    return {name: arrays[f"{group}|{name}"] for name in _names(arrays, group)}


def _names(keys: Iterable[str], group: str) -> list[str]:
    """Of those that belong to a group, their own names."""
    return [key.removeprefix(f"{group}|") for key in keys if key.startswith(f"{group}|")]


def _arrays(part: Part) -> dict[str, np.ndarray]:
    arrays = {"picture": part.picture}
    for component, samples in part.samples.items():
        for index, sample in enumerate(samples):
            for side, tensors in zip(("in", "out"), sample, strict=True):
                arrays |= _joined(**{f"sample|{component}|{index}|{side}": tensors})
    for component, seen in part.calibration.items():
        arrays |= _joined(**{f"seen|{component}": seen.to_arrays()})
    return arrays


def _part(described: _Description, arrays: Mapping[str, np.ndarray]) -> Part:
    samples = {name: _samples(_split(arrays, f"sample|{name}")) for name in described.samples}
    if {name: len(found) for name, found in samples.items()} != dict(described.samples):
        raise ValueError("not as many samples as it should have")
    return Part(
        picture=arrays["picture"],
        samples=samples,
        calibration={n: Calibration.from_arrays(_split(arrays, f"seen|{n}")) for n in described.samples},
        rows=described.rows,
    )


def _samples(arrays: Arrays) -> list[Sample]:
    """Those of one component, from arrays named `index|side|tensor`."""
    found: dict[int, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
    for key, array in arrays.items():
        index, side, tensor = key.split("|")
        found.setdefault(int(index), ({}, {}))[side == "out"][tensor] = array
    return [found[index] for index in sorted(found)]
