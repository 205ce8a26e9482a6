"""How well the miniature obeys: `python -m benchmarks.miniature --assets DIR --engine DIR`.

Fixed prompts and seeds; prompts and measures are in `pocketxl.export.miniature.evaluate`. The pictures come from
diffusers in float32 and, with `--engine`, from built engines too. Engines are several times as fast, so
`--engines-only` leaves diffusers the contact sheet and the figures that need no sampling. Each system's pictures are
compared with those of the systems before it, seed by seed. The last line on standard output is one JSON object.
`--sheet FILE` also writes the contact sheet.
"""

import argparse
import sys
from collections.abc import Sequence, Set
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

WEIGHTS = Path(__file__).parent.parent / "export" / "miniature" / "weights"
PARTS = ("vae", "noise", "single", "base_only", "pairs", "conditioning", "variety", "sheet")
ONCE = ("base_only", "conditioning", "variety")  # say what the model learned; the first system that samples shows it
REFERENCE = "diffusers-fp32"
BATCH = 24


def main() -> int:
    """Run the parts that were asked for and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miniature", description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the package's .webp files")
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="default: the checkpoint of the repository")
    parser.add_argument("--refiner", type=Path, default=WEIGHTS / "refiner")
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
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--sheet", type=Path, help="where to write the contact sheet of the last system")
    options = parser.parse_args()

    if options.threads:
        torch.set_num_threads(options.threads)
    base = StableDiffusionXLPipeline.from_pretrained(str(options.base), torch_dtype=torch.float32)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(str(options.refiner), torch_dtype=torch.float32)
    for pipeline in (base, refiner):
        pipeline.to(options.device)
        pipeline.set_progress_bar_config(disable=True)
    vocabulary = read_vocabulary(options.assets, options.vocabulary)
    names = [emoji.name for emoji in vocabulary]
    painter = Painter(vocabulary)
    size = options.resolution

    records: list[report.Record] = []

    def keep(system: str, found: Sequence[evaluate.Figure]) -> None:
        for one in found:
            records.append(
                report.Record(case=one.case, system=system, metric=one.metric, value=one.value, unit=one.unit)
            )
            print(f"{system}: {one.case} {one.metric} {one.value:.4g}", file=sys.stderr, flush=True)

    if "vae" in options.parts:
        keep(REFERENCE, [held_out.vae_psnr(base.vae, painter, names, size)])
    if "noise" in options.parts:
        data = build_buckets(
            vocabulary, base.vae, (base.tokenizer, base.tokenizer_2), resolution=size, count=1000,
            seed=evaluate.SEED, cache=None, device=torch.device(options.device),
        )  # fmt: skip
        keep(REFERENCE, held_out.noise_prediction(base, refiner, data))

    systems = {REFERENCE: of_diffusers(base, refiner, options.steps)}
    for folder in options.engine:
        systems[folder.name] = of_engine(Pipeline.load(folder, threads=options.threads), options.steps)
    made: dict[str, dict[evaluate.Request, Pictures]] = {}
    parts = set(options.parts)
    for system, make in systems.items():
        made[system] = {}
        remembered = remembering(make, made[system])
        if system != REFERENCE or not options.engines_only:
            keep(system, obey(remembered, painter, names, size, parts, options.count))
            parts -= set(ONCE)
        if "sheet" in parts:
            sheet = remembered(evaluate.Request(prompts=CONTACT_SHEET, height=size, width=size, seed=0))
            if options.sheet:
                save_grid(sheet, 8, options.sheet)
        for other in list(made)[:-1]:
            keep(system, same_seeds(made[system], made[other], other))
    report.finish("miniature", records)
    return 0


def remembering(make: evaluate.Generate, made: dict[evaluate.Request, Pictures]) -> evaluate.Generate:
    """Make each picture once, and keep it for comparisons."""

    def remembered(request: evaluate.Request) -> Pictures:
        if request not in made:
            made[request] = make(request)
        return made[request]

    return remembered


def same_seeds(
    mine: dict[evaluate.Request, Pictures], theirs: dict[evaluate.Request, Pictures], other: str
) -> list[evaluate.Figure]:
    """Mean PSNR over all pictures that both systems made from the same prompts and seeds."""
    common = [request for request in mine if request in theirs]
    if not common:
        return []
    values = np.concatenate([measures.psnr_db(mine[request], theirs[request]) for request in common])
    case = f"same_seeds_as_{other}"
    return [
        evaluate.Figure(case=case, metric="mean_psnr_db", value=float(values.mean()), unit="dB"),
        evaluate.Figure(case=case, metric="least_psnr_db", value=float(values.min()), unit="dB"),
        evaluate.Figure(case=case, metric="pictures", value=len(values), unit="1"),
    ]


def obey(
    make: evaluate.Generate, painter: Painter, names: Sequence[str], size: int, parts: Set[str], count: int
) -> list[evaluate.Figure]:
    """The figures that only need pictures."""
    found: list[evaluate.Figure] = []
    if "single" in parts:
        found += evaluate.obedience(make, painter, names, size, count=count)
    if "base_only" in parts:
        found += evaluate.obedience(make, painter, names, size, refine=False, count=count)
        found += evaluate.pairs(make, painter, names, size, refine=False, count=count // 2)
    if "pairs" in parts:
        found += evaluate.pairs(make, painter, names, size, count=count // 2)
    if "conditioning" in parts:
        found += evaluate.conditioning(make, names, size)
    if "variety" in parts:
        found += evaluate.variety(make, CONTACT_SHEET, size)
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
