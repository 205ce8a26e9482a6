"""`python -m pocketxl.export.miniature`: train the miniature, or continue training it."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ...engine.errors import PocketXLError, RequestError, StorageError
from ...engine.install import install_advice
from .recipe import TrainingRecipe
from .stages import run
from .trainer import TrainingSettings

AGAIN = 75  # EX_TEMPFAIL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is `pocketxl`'s, or 75: stopped early, call it again to go on."""
    try:
        return 0 if run(_recipe(arguments)) else _fail("stopped, and saved; call it again to go on", AGAIN)
    except PocketXLError as error:
        return _fail(f"error: {error}", error.exit_code)
    except ImportError as error:
        return _fail(f"error: {error}; {install_advice('miniature')}", 3)
    except OSError as error:
        return _fail(
            "error: " + f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), StorageError.exit_code
        )
    except KeyboardInterrupt:
        return _fail("interrupted; call it again to go on", 130)


def _recipe(arguments: Sequence[str] | None) -> TrainingRecipe:
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
        "--refiner-minutes", type=float, default=45.0, help="active minutes for the refiner; 0 likewise"
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
    if options.threads is not None:
        if options.threads < 1:
            raise RequestError(f"threads: {options.threads} is not allowed; give 1 or more")
        torch.set_num_threads(options.threads)
    return TrainingRecipe(
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
        settings=TrainingSettings(
            batch=options.batch, learning_rate=options.learning_rate, seed=options.seed, workers=options.workers
        ),
    )


def _today(text: str | None) -> float | None:
    if text is None:
        return None
    day = time.strftime("%Y-%m-%d")
    try:
        return time.mktime(time.strptime(f"{day} {text}", "%Y-%m-%d %H:%M"))
    except ValueError as error:
        raise RequestError(f"deadline: {text!r} is no time of day; give HH:MM, as 06:30") from error


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
