"""The figures of one system on one case."""

import time
from collections.abc import Mapping
from statistics import median

import numpy as np

from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner, call
from pocketxl.engine.specs import Role
from pocketxl.export.reference.parity import psnr_db
from pocketxl.export.reference.similarity import ssim

from ..report import Record
from .cases import Case
from .prompts import Pictures, pictures
from .samples import ALL, Inputs
from .systems import Opened, System

WARM_UP, CALLS = 3, 15


def figures(case: Case, system: System, opened: Opened, references: Pictures | None) -> list[Record]:
    """Errors, size, time, and the distance of its pictures from `references` (None: pictures are left out)."""
    found: list[Record] = []

    def add(what: str, metric: str, value: float, unit: str) -> None:
        name = f"{case.name} {what}".strip()
        found.append(Record(case=name, system=system.name, metric=metric, value=float(value), unit=unit))

    add("", "size_bytes", opened.size_bytes, "B")
    for name, runner in opened.runners.items():
        if name not in case.samples.inputs:  # the run does not need it
            continue
        for level, error in case.samples.errors(name, opened.runners).items():
            add(name if level == ALL else f"{name} {level}", "relative_error", error, "1")
        if runner.spec.role is Role.UNET:
            add(name, "seconds", seconds(runner, case.samples.inputs[name]["middle"][0]), "s")
    if references is not None:
        made = of_runners(case, opened.runners, len(references))
        for metric, value, unit in distances(made, references):
            add("pictures", metric, value, unit)
    return found


def of_runners(case: Case, runners: Mapping[str, Runner], count: int) -> Pictures:
    """`count` pictures by these runners in the case's pipeline."""
    pipe = Pipeline(case.fp32.models, runners, case.fp32.tokenizers)
    return pictures(pipe, count, steps=case.settings.steps, size=case.settings.size)


def distances(made: Pictures, references: Pictures) -> list[tuple[str, float, str]]:
    """Mean and least PSNR and SSIM over pictures, as metric, value and unit; at most 200 dB."""
    squares = np.square(made.astype(np.float64) - references).mean(axis=(1, 2, 3))
    decibels = [psnr_db(float(square), 1.0) for square in squares]
    alike = ssim(made, references)
    return [
        ("mean_psnr_db", float(np.mean(decibels)), "dB"),
        ("least_psnr_db", min(decibels), "dB"),
        ("mean_ssim", float(alike.mean()), "1"),
        ("least_ssim", float(alike.min()), "1"),
        ("pictures", len(made), "1"),
    ]


def seconds(runner: Runner, inputs: Inputs) -> float:
    """Of one call of one row: the median of `CALLS`, after `WARM_UP`."""
    taken = []
    for _ in range(WARM_UP + CALLS):
        begin = time.perf_counter()
        call(runner, inputs)
        taken.append(time.perf_counter() - begin)
    return median(taken[WARM_UP:])
