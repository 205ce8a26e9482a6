"""What one run of the recipe is told, and what of it is refused before anything is done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...engine.errors import RequestError
from .models import Miniature
from .trainer import TrainingSettings
from .vocabulary import Vocabulary

START = ("tokenizer", "tokenizer_2", "vae")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """One run of the recipe.

    `start` is a folder with `vae/`, `tokenizer/` and `tokenizer_2/` to begin from; without it these are trained
    first, under `work`. If it has `unet/` and the encoders too, as the `base/` of a finished pair has, training
    begins with their weights. `start_refiner` is that pair's `refiner/`; without it the refiner begins as a copy of
    what it shares with the base. Minutes count while training; zero keeps the weights that the stage begins with.
    Deadlines are seconds since the epoch; one that has passed ends its stage.
    """

    assets: Path
    work: Path
    out: Path
    start: Path | None = None
    start_refiner: Path | None = None
    minutes: float = 90.0
    refiner_minutes: float = 45.0
    vae_minutes: float = 85.0
    deadline: float | None = None
    refiner_deadline: float | None = None
    vocabulary: Vocabulary = "core"
    resolution: int = 128
    compositions: int = 28800
    device: str = "cpu"
    seed: int = 0
    model: Miniature = field(default_factory=Miniature)
    settings: TrainingSettings = field(default_factory=TrainingSettings)


def check(recipe: TrainingRecipe) -> None:
    """Refuse what cannot work, before the first file is written.

    Raises `RequestError`: names the field, its value, what is allowed and what to do.
    """
    _check_folders(recipe)
    settings = recipe.settings
    for name, minutes in (
        ("minutes", recipe.minutes),
        ("refiner minutes", recipe.refiner_minutes),
        ("VAE minutes", recipe.vae_minutes),
    ):
        _require(math.isfinite(minutes) and minutes >= 0, f"{name}: {minutes} is not allowed; give 0 or more")
    _check_kept(recipe)
    for name, count in (("batch", settings.batch), ("workers", settings.workers)):
        _require(count >= 1, f"{name}: {count} is not allowed; give 1 or more")
    # The rarer shapes get a tenth each, and each needs a picture.
    _require(recipe.compositions >= 10, f"compositions: {recipe.compositions} is too few; give 10 or more")
    rate = settings.learning_rate
    _require(math.isfinite(rate) and rate > 0, f"learning rate: {rate} is not allowed; give more than 0, as 0.001")
    if recipe.device.startswith("cuda"):
        _require(
            torch.cuda.is_available(), "device cuda: torch sees no GPU here; install torch's CUDA build, or use cpu"
        )


def _check_folders(recipe: TrainingRecipe) -> None:
    _require(recipe.assets.is_dir(), f"assets: {recipe.assets} is no folder; give that of the package's .webp files")
    for folder in (recipe.work, recipe.out):
        _require(not folder.is_file(), f"{folder} is a file; name a folder")
    start = recipe.start
    if start:
        missing = [name for name in START if not (start / name).is_dir()]
        _require(not missing, f"start: {start} has no {', '.join(missing)}; give the base/ folder of a pair")
    refiner = recipe.start_refiner
    if refiner:
        _require(
            (refiner / "unet").is_dir(), f"refiner start: {refiner} has no unet; give the refiner/ folder of a pair"
        )


def _check_kept(recipe: TrainingRecipe) -> None:
    """A stage of no minutes keeps its weights: there must be some."""
    start, work = recipe.start, recipe.work
    for name, minutes, there, fix in (
        ("VAE", recipe.vae_minutes, bool(start) or (work / "start" / "vae").is_dir(), "a folder with one as start"),
        (
            "base",
            recipe.minutes,
            (start is not None and (start / "unet").is_dir()) or (work / "base.pt").exists(),
            "the base/ folder of a pair as start",
        ),
        (
            "refiner",
            recipe.refiner_minutes,
            bool(recipe.start_refiner) or (work / "refiner.pt").exists(),
            "the refiner/ folder of a pair as refiner start",
        ),
    ):
        _require(
            minutes > 0 or there, f"0 minutes keep the {name} as it is, but there is none: give more minutes, or {fix}"
        )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RequestError(message)
