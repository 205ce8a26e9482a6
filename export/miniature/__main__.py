"""``python -m pocketxl.export.miniature``: train the miniature, or continue training it."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .recipe import Recipe, run
from .trainer import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the recipe; 0 when finished, 75 when stopped early and worth calling again."""
    parser = argparse.ArgumentParser(prog="python -m pocketxl.export.miniature", description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the package's .webp files")
    parser.add_argument("--work", type=Path, required=True, help="caches, checkpoints and sample grids")
    parser.add_argument("--out", type=Path, required=True, help="where base/ and refiner/ are written")
    parser.add_argument("--start", type=Path, help="begin with this folder's tokenizers, VAE and, if there, U-Net")
    parser.add_argument("--start-refiner", type=Path, help="and with this refiner's U-Net")
    parser.add_argument("--vae-minutes", type=float, default=85.0, help="active minutes for the VAE, without --start")
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="active minutes for the base; 0 keeps that of --start"
    )
    parser.add_argument(
        "--refiner-minutes", type=float, default=15.0, help="active minutes for the refiner; 0 likewise"
    )
    parser.add_argument("--deadline", help="wall-clock end of the base, HH:MM today")
    parser.add_argument("--refiner-deadline", help="wall-clock end of the refiner, HH:MM today")
    parser.add_argument("--vocabulary", choices=("core", "all"), default="core")
    parser.add_argument("--resolution", type=int, choices=(128, 256), default=128)
    parser.add_argument("--compositions", type=int, default=28800, help="how many pictures are drawn and encoded")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="threads that each train on a batch of their own")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe(
        assets=options.assets,
        work=options.work,
        out=options.out,
        start=options.start,
        start_refiner=options.start_refiner,
        minutes=options.minutes,
        vae_minutes=options.vae_minutes,
        refiner_minutes=options.refiner_minutes,
        deadline=_today(options.deadline),
        refiner_deadline=_today(options.refiner_deadline),
        vocabulary=options.vocabulary,
        resolution=options.resolution,
        compositions=options.compositions,
        device=options.device,
        seed=options.seed,
        settings=Settings(
            batch=options.batch, learning_rate=options.learning_rate, seed=options.seed, workers=options.workers
        ),
    )
    return 0 if run(recipe) else 75


def _today(text: str | None) -> float | None:
    if text is None:
        return None
    day = time.strftime("%Y-%m-%d")
    return time.mktime(time.strptime(f"{day} {text}", "%Y-%m-%d %H:%M"))


if __name__ == "__main__":
    sys.exit(main())
