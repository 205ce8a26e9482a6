"""How well the miniature obeys: ``python -m benchmarks.miniature --assets DIR --base DIR --refiner DIR``.

Fixed prompts and seeds; prompts and measures are in ``pocketxl.export.miniature.evaluate``. The pictures come from
diffusers in float32 and, with ``--engine``, from built engines too, which are also compared with diffusers picture by
picture. The last line on standard output is one JSON object. ``--sheet FILE`` also writes the contact sheet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.miniature import evaluate, held_out, measures
from pocketxl.export.miniature.compose import Painter
from pocketxl.export.miniature.latents import build_buckets
from pocketxl.export.miniature.measures import Pictures
from pocketxl.export.miniature.sample import CONTACT_SHEET, generate, save_grid
from pocketxl.export.miniature.vocabulary import read_vocabulary

from . import report

PARTS = ("vae", "noise", "single", "base_only", "pairs", "conditioning", "sheet")
REFERENCE = "diffusers-fp32"
BATCH = 24


def main() -> int:
    """Run the parts that were asked for and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miniature", description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the package's .webp files")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--refiner", type=Path, required=True)
    parser.add_argument(
        "--engine", type=Path, action="append", default=[], help="a built engine; its name is the system's"
    )
    parser.add_argument("--engines-only", action="store_true", help="diffusers makes the contact sheet only")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--vocabulary", choices=("core", "all"), default="core")
    parser.add_argument("--count", type=int, default=200, help="single-object prompts; half as many with two objects")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet", type=Path, help="where to write the contact sheet of the last system")
    options = parser.parse_args()

    base = StableDiffusionXLPipeline.from_pretrained(str(options.base), torch_dtype=torch.float32)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(str(options.refiner), torch_dtype=torch.float32)
    for pipeline in (base, refiner):
        pipeline.to(options.device)
        pipeline.set_progress_bar_config(disable=True)
    vocabulary = read_vocabulary(options.assets, options.vocabulary)
    names = [emoji.name for emoji in vocabulary]
    painter = Painter(vocabulary)
    size = options.resolution

    systems = {REFERENCE: of_diffusers(base, refiner, options.steps)}
    systems |= {folder.name: of_engine(Pipeline.load(folder), options.steps) for folder in options.engine}
    records: list[report.Record] = []
    sheets: dict[str, Pictures] = {}
    for system, make in systems.items():
        found: list[evaluate.Record] = []
        if system == REFERENCE and "vae" in options.parts:
            found.append(held_out.vae_psnr(base.vae, painter, names, size))
        if system == REFERENCE and "noise" in options.parts:
            data = build_buckets(
                vocabulary, base.vae, (base.tokenizer, base.tokenizer_2), resolution=size, count=1000,
                seed=evaluate.SEED, cache=None, device=torch.device(options.device),
            )  # fmt: skip
            found += held_out.noise_prediction(base, refiner, data)
        if system != REFERENCE or not options.engines_only:
            found += obey(make, painter, names, size, options.parts, options.count)
        if "sheet" in options.parts:
            sheets[system] = make(evaluate.Request(prompts=CONTACT_SHEET, height=size, width=size, seed=0))
            values = measures.psnr_db(sheets[system], sheets[REFERENCE])
            if system != REFERENCE:
                found.append(
                    evaluate.Record(case="same_seeds", metric="psnr_db", value=float(values.mean()), unit="dB")
                )
            if options.sheet:
                save_grid(sheets[system], 8, options.sheet)
        records += [
            report.Record(case=one.case, system=system, metric=one.metric, value=one.value, unit=one.unit)
            for one in found
        ]
    report.finish("miniature", records)
    return 0


def obey(
    make: evaluate.Generate, painter: Painter, names: Sequence[str], size: int, parts: Sequence[str], count: int
) -> list[evaluate.Record]:
    """The figures that only need pictures."""
    found: list[evaluate.Record] = []
    if "single" in parts:
        found += evaluate.obedience(make, painter, names, size, count=count)
    if "base_only" in parts:
        found += evaluate.obedience(make, painter, names, size, refine=False, count=count)
    if "pairs" in parts:
        found += evaluate.pairs(make, painter, names, size, count=count // 2)
    if "conditioning" in parts:
        found += evaluate.conditioning(make, names, size)
    return found


def of_diffusers(
    base: StableDiffusionXLPipeline, refiner: StableDiffusionXLImg2ImgPipeline, steps: int
) -> evaluate.Generate:
    """Pictures by the diffusers pipelines."""

    def make(request: evaluate.Request) -> Pictures:
        _say(request, REFERENCE)
        return generate(
            base, refiner if request.refine else None, request.prompts, seed=request.seed, steps=steps,
            height=request.height, width=request.width, original_size=request.original_size, crop=request.crop,
            batch=BATCH,
        )  # fmt: skip

    return make


def of_engine(pipeline: Pipeline, steps: int) -> evaluate.Generate:
    """Pictures by a built engine; the same seeds mean the same noise."""

    def make(request: evaluate.Request) -> Pictures:
        _say(request, pipeline.name)
        made = []
        for start in range(0, len(request.prompts), BATCH):
            some = request.prompts[start : start + BATCH]
            result = pipeline(
                list(some), seed=[request.seed + start + i for i in range(len(some))], num_inference_steps=steps,
                guidance_scale=5.0, height=request.height, width=request.width, original_size=request.original_size,
                crops_coords_top_left=request.crop, refiner=request.refine, output_type="np",
            )  # fmt: skip
            made.append(np.asarray(result.images, np.float32))
        return np.concatenate(made)

    return make


def _say(request: evaluate.Request, system: str) -> None:
    print(f"{system}: {len(request.prompts)} of {request.height}x{request.width}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
