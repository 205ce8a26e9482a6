"""How well the miniature obeys: ``python -m benchmarks.miniature --assets DIR --base DIR --refiner DIR``.

Fixed prompts and seeds; the prompts and the measures are in ``pocketxl.export.miniature.evaluate``. The last line on
standard output is one JSON object. ``--sheet FILE`` also writes the contact sheet.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from pocketxl.export.miniature import evaluate, held_out
from pocketxl.export.miniature.compose import Painter
from pocketxl.export.miniature.latents import build_buckets
from pocketxl.export.miniature.measures import Pictures
from pocketxl.export.miniature.sample import CONTACT_SHEET, generate, save_grid
from pocketxl.export.miniature.vocabulary import read_vocabulary

from . import report

PARTS = ("vae", "noise", "single", "base_only", "pairs", "conditioning", "sheet")


def main() -> int:
    """Run the parts that were asked for and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miniature", description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the package's .webp files")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--refiner", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--vocabulary", choices=("core", "all"), default="core")
    parser.add_argument("--count", type=int, default=200, help="single-object prompts; half as many with two objects")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet", type=Path, help="where to write the contact sheet")
    options = parser.parse_args()

    base = StableDiffusionXLPipeline.from_pretrained(str(options.base), torch_dtype=torch.float32).to(options.device)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(str(options.refiner), torch_dtype=torch.float32).to(
        options.device
    )
    for pipeline in (base, refiner):
        pipeline.set_progress_bar_config(disable=True)
    vocabulary = read_vocabulary(options.assets, options.vocabulary)
    names = [emoji.name for emoji in vocabulary]
    painter = Painter(vocabulary)
    vae: AutoencoderKL = base.vae

    def make(request: evaluate.Request) -> Pictures:
        ids: dict[str, object] = {"crops_coords_top_left": request.crop}
        if request.original_size is not None:
            ids["original_size"] = request.original_size
        print(f"{len(request.prompts)} pictures of {request.height}x{request.width}", file=sys.stderr, flush=True)
        return generate(
            base, refiner if request.refine else None, request.prompts, seed=request.seed, steps=options.steps,
            height=request.height, width=request.width, **ids,
        )  # fmt: skip

    found: list[evaluate.Record] = []
    size = options.resolution
    if "vae" in options.parts:
        found.append(held_out.vae_psnr(vae, painter, names, size))
    if "noise" in options.parts:
        data = build_buckets(
            vocabulary, vae, (base.tokenizer, base.tokenizer_2), resolution=size, count=1000, seed=evaluate.SEED,
            cache=None, device=torch.device(options.device),
        )  # fmt: skip
        found += held_out.noise_prediction(base, refiner, data)
    if "single" in options.parts:
        found += evaluate.obedience(make, painter, names, size, count=options.count)
    if "base_only" in options.parts:
        found += evaluate.obedience(make, painter, names, size, refine=False, count=options.count)
    if "pairs" in options.parts:
        found += evaluate.pairs(make, painter, names, size, count=options.count // 2)
    if "conditioning" in options.parts:
        found += evaluate.conditioning(make, names, size)
    if "sheet" in options.parts and options.sheet:
        pictures = make(evaluate.Request(prompts=CONTACT_SHEET, height=size, width=size, seed=0))
        save_grid(np.asarray(pictures), 8, options.sheet)
    report.finish(
        "miniature",
        [
            report.Record(case=one.case, system="diffusers-fp32", metric=one.metric, value=one.value, unit=one.unit)
            for one in found
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
