"""The figures of the model card: fixed prompts and seeds, any system that makes pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from . import captions, measures
from .compose import SCALES, TWO_SCALE, Composition, Painter, Size, buckets
from .measures import Pictures

SEED: Final = 1_000_000  # far from every seed that training uses
CANDIDATES: Final = 100


@dataclass(frozen=True, kw_only=True)
class Request:
    """Pictures to make: picture i of `prompts` starts from the noise of `seed + i`."""

    prompts: tuple[str, ...]
    height: int
    width: int
    seed: int = SEED
    refine: bool = True
    original_size: Size | None = None
    crop: Size = (0, 0)


Generate = Callable[[Request], Pictures]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, as the benchmarks print it."""

    case: str
    metric: str
    value: float
    unit: str


def single_prompts(names: Sequence[str], count: int = 200) -> list[tuple[str, str]]:
    """(name, colour) pairs: every name once in a fixed shuffled order before any comes twice; colours in turn."""
    rng = random.Random(f"single {SEED}")
    order: list[str] = []
    while len(order) < count:
        order += rng.sample(list(names), len(names))
    colours = list(captions.COLOURS)
    return [(name, colours[i % len(colours)]) for i, name in enumerate(order[:count])]


def pair_prompts(names: Sequence[str], count: int = 100) -> list[tuple[str, str, str]]:
    """(left, right, colour) triples."""
    rng = random.Random(f"pair {SEED}")
    colours = list(captions.COLOURS)
    return [(*rng.sample(list(names), 2), colours[i % len(colours)]) for i in range(count)]  # type: ignore[misc]


def obedience(
    generate: Generate,
    painter: Painter,
    names: Sequence[str],
    resolution: int,
    *,
    refine: bool = True,
    count: int = 200,
) -> list[Figure]:
    """Share of prompts with the named background, and with the named object nearest to its own training picture."""
    wanted = single_prompts(names, count)
    prompts = tuple(captions.one(name, colour) for name, colour in wanted)
    pictures = generate(Request(prompts=prompts, height=resolution, width=resolution, refine=refine))
    rng = random.Random(f"candidates {SEED}")
    right_colour, right_object, psnr = 0, 0, []
    for picture, (name, colour) in zip(pictures, wanted, strict=True):
        right_colour += measures.nearest_colour(measures.background(picture)) == colour
        others = rng.sample([other for other in names if other != name], min(CANDIDATES, len(names)) - 1)
        references = [_paint(painter, (other,), colour, (resolution, resolution)) for other in (name, *others)]
        reduced = np.stack([measures.reduce(reference) for reference in references])
        right_object += int(measures.distances(measures.reduce(picture), reduced).argmin()) == 0
        psnr.append(float(measures.psnr_db(picture[None], references[0][None])[0]))
    case = "base_and_refiner" if refine else "base_only"
    return [
        Figure(case=f"{case}_background", metric="share_right", value=right_colour / count, unit="1"),
        Figure(case=f"{case}_object", metric="share_right", value=right_object / count, unit="1"),
        Figure(case=f"{case}_to_training_picture", metric="psnr_db", value=float(np.mean(psnr)), unit="dB"),
        Figure(case=f"{case}_sharpness", metric="mean_laplacian", unit="1",
               value=float(np.mean([measures.sharpness(picture) for picture in pictures]))),
    ]  # fmt: skip


def pairs(
    generate: Generate,
    painter: Painter,
    names: Sequence[str],
    resolution: int,
    *,
    refine: bool = True,
    count: int = 100,
) -> list[Figure]:
    """Two-object prompts: each half's nearest among the candidates is the one named for that side.

    And, less strictly: the picture is nearer to the named arrangement than to one with its two sides exchanged.
    """
    wanted = pair_prompts(names, count)
    prompts = tuple(captions.two(left, right, colour) for left, right, colour in wanted)
    pictures = generate(Request(prompts=prompts, height=resolution, width=resolution, refine=refine))
    rng = random.Random(f"pair candidates {SEED}")
    size = (resolution, resolution)
    both, sides = 0, 0
    for picture, (left, right, colour) in zip(pictures, wanted, strict=True):
        others = rng.sample([other for other in names if other not in (left, right)], min(CANDIDATES, len(names)) - 2)
        # One painting shows a candidate on both sides; each half is compared with that half.
        painted = [_paint(painter, (name, name), colour, size) for name in (left, right, *others)]
        reduced = np.stack([measures.reduce(reference) for reference in painted])
        made = measures.reduce(picture)
        half = made.shape[1] // 2
        found_left = int(measures.distances(made[:, :half], reduced[:, :, :half]).argmin())
        found_right = int(measures.distances(made[:, half:], reduced[:, :, half:]).argmin())
        both += found_left == 0 and found_right == 1
        arranged = np.stack([measures.reduce(_paint(painter, names_, colour, size))
                             for names_ in ((left, right), (right, left))])  # fmt: skip
        sides += int(measures.distances(made, arranged).argmin()) == 0
    case = "two_objects" if refine else "base_only_two_objects"
    return [
        Figure(case=f"{case}_both_found", metric="share_right", value=both / count, unit="1"),
        Figure(case=f"{case}_sides", metric="share_right", value=sides / count, unit="1"),
    ]


def variety(generate: Generate, prompts: Sequence[str], resolution: int) -> list[Figure]:
    """How alike two pictures of one prompt from different seeds are; the median over the prompts."""
    first, second = (
        generate(Request(prompts=tuple(prompts), height=resolution, width=resolution, seed=seed))
        for seed in (SEED, 2 * SEED)
    )
    value = float(np.median(measures.psnr_db(first, second)))
    return [Figure(case="two_seeds", metric="median_psnr_db", value=value, unit="dB")]


def conditioning(generate: Generate, names: Sequence[str], resolution: int, *, count: int = 24) -> list[Figure]:
    """What size, crop and target ids do: blur, shift, whole and centred objects."""
    wanted = single_prompts(names, count)
    prompts = tuple(captions.one(name, colour) for name, colour in wanted)
    square = {"prompts": prompts, "height": resolution, "width": resolution}
    native = generate(Request(**square))  # type: ignore[arg-type]
    quarter = resolution // 4
    blurred = generate(Request(**square, original_size=(quarter, quarter)))  # type: ignore[arg-type]
    canvas = (resolution * 3 // 2, resolution * 3 // 2)
    uncropped = generate(Request(**square, original_size=canvas))  # type: ignore[arg-type]
    right = generate(Request(**square, original_size=canvas, crop=(0, quarter)))  # type: ignore[arg-type]
    down = generate(Request(**square, original_size=canvas, crop=(quarter, 0)))  # type: ignore[arg-type]
    ratio = np.mean([measures.sharpness(b) for b in blurred]) / np.mean([measures.sharpness(n) for n in native])
    records = [
        Figure(case="original_size_quarter_sharpness", metric="ratio_to_native", value=float(ratio), unit="1"),
        Figure(case="crop_left_quarter_shift", metric="object_shift", unit="px",
               value=_median_shift(uncropped, right, axis=1)),
        Figure(case="crop_top_quarter_shift", metric="object_shift", unit="px",
               value=_median_shift(uncropped, down, axis=0)),
        Figure(case="crop_asked_shift", metric="object_shift", value=-float(quarter), unit="px"),
    ]  # fmt: skip
    for label, (height, width) in zip(("square", "landscape", "portrait"), buckets(resolution), strict=True):
        pictures = native if label == "square" else generate(Request(prompts=prompts, height=height, width=width))
        # At a quarter of the size: a speck at the edge is no part of the object.
        masks = [
            measures.foreground(measures.reduce(picture, height // 4), measures.background(picture).tolist())
            for picture in pictures
        ]
        offsets = [
            max(abs(row - (height / 4 - 1) / 2) / height, abs(column - (width / 4 - 1) / 2) / width) * 4
            for row, column in map(measures.centre, masks)
        ]
        whole = [not measures.touches_edge(mask) and offset < 0.1 for mask, offset in zip(masks, offsets, strict=True)]
        records.append(
            Figure(case=f"{label}_whole_and_centred", metric="share_right", value=float(np.mean(whole)), unit="1")
        )
    return records


def _median_shift(before: Pictures, after: Pictures, axis: int) -> float:
    moves = []
    for first, second in zip(before, after, strict=True):
        places = [
            _mean_place(measures.foreground(picture, measures.background(picture).tolist()), axis)
            for picture in (first, second)
        ]
        moves.append(places[1] - places[0])
    return float(np.nanmedian(moves))


def _mean_place(mask: npt.NDArray[np.bool_], axis: int) -> float:
    where = np.nonzero(mask)[axis]
    return float(where.mean()) if len(where) else float("nan")


def _paint(painter: Painter, objects: tuple[str, ...], colour: str, size: Size) -> Pictures:
    composition = Composition(
        caption="",
        objects=objects,
        colour=colour,
        scale=SCALES[""] if len(objects) == 1 else TWO_SCALE,
        original_size=size,
        crop=(0, 0),
        target_size=size,
    )
    return np.asarray(painter.paint(composition), np.float32) / np.float32(255)
