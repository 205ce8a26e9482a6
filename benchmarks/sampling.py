"""What samplers, schedules, presets and a guidance interval cost and give on the miniature.

    python -m benchmarks.sampling [--pictures N]

`psnr_db`: samplers that draw no noise, against a walk of the same seed in very many steps; presets for any model
against the preset `quality`; an interval against the same call with guidance all the way. `evaluations`: rows of the
U-Nets a picture. `cpu_seconds`: processor time of a picture, the decoder's too, which other work on the machine does
not lengthen. With random or stochastic ends a distance says nothing, so those samplers are not here.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from pocketxl.engine import Pipeline
from pocketxl.export.miniature.sample import CONTACT_SHEET

from .report import Record, finish

BASE: Mapping[str, Any] = {"refiner": False, "sampler": "dpmpp_2m", "schedule": "karras", "num_inference_steps": 20}
EXACT: Mapping[str, Any] = {"refiner": False, "sampler": "heun", "schedule": "karras", "num_inference_steps": 100}
SAMPLERS = ("euler", "heun", "dpmpp_2m", "unipc", "res_multistep")
SCHEDULES = ("default", "karras", "align_your_steps", "beta", "simple", "sgm_uniform")
EVALUATIONS = (10, 20)
INTERVALS = ((0.0, 0.9), (0.0, 0.8), (0.0, 0.6), (0.0, 0.4), (0.1, 1.0), (0.2, 1.0), (0.4, 1.0), (0.2, 0.8))
PRESETS = ("fast", "laptop")


class Measured:
    """Pictures of the first prompts of the contact sheet, and the records of them."""

    def __init__(self, pipe: Pipeline, pictures: int) -> None:
        self.pipe, self.prompts = pipe, CONTACT_SHEET[:pictures]
        self.records: list[Record] = []

    def pictures(self, options: Mapping[str, Any]) -> tuple[np.ndarray, float, float]:
        """The pictures, rows of the U-Nets and processor seconds of one."""
        rows = 0
        seconds = time.process_time()
        made = []
        for seed, prompt in enumerate(self.prompts):
            output = self.pipe(prompt, seed=seed, output_type="np", **options)
            made.append(output.images)
            rows += self._rows(output.request)
        return np.concatenate(made), rows / len(made), (time.process_time() - seconds) / len(made)

    def record(self, case: str, options: Mapping[str, Any], reference: np.ndarray | None) -> np.ndarray:
        """Make the pictures of a case and note its figures."""
        found, rows, seconds = self.pictures(options)
        figures = {"evaluations": (rows, "rows"), "cpu_seconds": (seconds, "s")}
        if reference is not None:
            figures["psnr_db"] = (-10 * float(np.log10(np.square(found - reference).mean(axis=(1, 2, 3)).mean())), "dB")
        for metric, (value, unit) in figures.items():
            self.records.append(Record(case=case, system="pocketxl-int8", metric=metric, value=value, unit=unit))
        sys.stderr.write(f"{case}: {', '.join(f'{value:.2f} {unit}' for value, unit in figures.values())}\n")
        return found

    def _rows(self, request: Any) -> int:
        from pocketxl.engine.preparation import Prepared
        from pocketxl.engine.sampling.interval import guided_evaluations

        prepared = Prepared.of(request, self.pipe.models, self.pipe.tokenizers)
        return sum(
            1 + (on and any(tokens.guided for tokens in prepared.tokens[kind]))
            for kind, part in prepared.parts.items()
            for on in guided_evaluations(part, request.guidance_start, request.guidance_end)
        )


def main() -> None:
    """Measure and print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--pictures", type=int, default=12)
    args = parser.parse_args()
    with Pipeline.load(threads=1) as pipe:
        measured = Measured(pipe, args.pictures)
        measured.pictures(BASE)  # loads what is needed
        whole = measured.record("guidance all the way", BASE, None)
        for start, end in INTERVALS:
            options = {**BASE, "guidance_start": start, "guidance_end": end}
            measured.record(f"guidance {start:g} to {end:g}", options, whole)
        quality = measured.record("preset quality", {"preset": "quality"}, None)
        for preset in PRESETS:
            measured.record(f"preset {preset}", {"preset": preset}, quality)
        exact = measured.record("heun karras, 100 steps", EXACT, None)
        for evaluations in EVALUATIONS:
            for sampler in SAMPLERS:
                steps = evaluations // 2 + 1 if sampler == "heun" else evaluations
                for schedule in SCHEDULES:
                    options = {**EXACT, "sampler": sampler, "schedule": schedule, "num_inference_steps": steps}
                    measured.record(f"{sampler} {schedule}, {evaluations} evaluations", options, exact)
    finish("sampling", measured.records)


if __name__ == "__main__":
    main()
