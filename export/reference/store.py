"""What the reference run has made so far, kept in the work folder: a killed build goes on at the next picture.

One part for each prompt, `{index}.npz` (picture and samples, as they were computed) and `{index}.json` (key, sha256 of
the arrays, ranges, counts), both durably and the description last. A part is used if key and hash match and every part
before it was used too; anything else is made again, for it costs time and nothing else.
"""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...engine.errors import IntegrityError
from ...engine.folder.durable import write_durably
from ...engine.folder.samples import Sample
from ...engine.folder.schema import decode, encode
from .calibrate import Calibration


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one prompt left.

    `picture`: (H, W, 3) in [0, 1]; `samples`: the kept rows of each component's calls; `calibration`: ranges over this
    and all earlier prompts; `rows`: those that each component has seen so far.
    """

    picture: np.ndarray
    samples: Mapping[str, Sequence[Sample]]
    calibration: Mapping[str, Calibration]
    rows: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class _Description:
    key: str
    sha256: str
    ranges: Mapping[str, Mapping[str, tuple[float, ...]]]
    rows: Mapping[str, int]
    samples: Mapping[str, int]


class ReferenceStore:
    """The parts in `folder` that were made for `key`."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key

    def read(self, index: int) -> Part | None:
        """The part of prompt `index`, or None: absent, of another build, or damaged."""
        try:
            data = json.loads((self._folder / f"{index}.json").read_bytes())
            described = decode(_Description, data, f"{index}.json")
            if described.key != self._key:
                return None
            content = (self._folder / f"{index}.npz").read_bytes()
            if hashlib.sha256(content).hexdigest() != described.sha256:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return _part(described, {name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError, RecursionError, IntegrityError, zipfile.BadZipFile):
            return None

    def write(self, index: int, part: Part) -> None:
        """Keep one part. The first one clears what other builds left."""
        if index == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        buffer = io.BytesIO()
        np.savez(buffer, **_arrays(part))  # type: ignore[arg-type]
        content = buffer.getvalue()
        described = _Description(
            key=self._key,
            sha256=hashlib.sha256(content).hexdigest(),
            ranges={name: seen.to_json()["ranges"] for name, seen in part.calibration.items()},
            rows=part.rows,
            samples={name: len(samples) for name, samples in part.samples.items()},
        )
        write_durably(self._folder / f"{index}.npz", content)
        write_durably(self._folder / f"{index}.json", json.dumps(encode(described)).encode())


def _arrays(part: Part) -> dict[str, np.ndarray]:
    arrays = {"picture": part.picture}
    for component, samples in part.samples.items():
        for index, sample in enumerate(samples):
            for side, tensors in zip(("in", "out"), sample, strict=True):
                arrays |= {f"{component}|{index}|{side}|{name}": array for name, array in tensors.items()}
    return arrays


def _part(described: _Description, arrays: Mapping[str, np.ndarray]) -> Part:
    samples: dict[str, list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]] = {
        name: [({}, {}) for _ in range(n)] for name, n in described.samples.items()
    }
    for name, array in arrays.items():
        if name != "picture":
            component, index, side, tensor = name.split("|")
            samples[component][int(index)][side == "out"][tensor] = array
    return Part(
        picture=arrays["picture"],
        samples=samples,
        calibration={name: Calibration.from_json({"ranges": seen}) for name, seen in described.ranges.items()},
        rows=described.rows,
    )
