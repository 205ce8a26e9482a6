"""The order of the stages: tokenizers, VAE, latents, base, refiner; each is skipped when its result is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from .autoencoder import train_autoencoder
from .base import BaseLoss, plain_attention
from .budget import Budget
from .latents import Bucket, build_buckets
from .models import Miniature, base_unet, parameter_count, refiner_unet, text_encoder, text_encoder_2
from .package import base_pipeline, refiner_pipeline, save_folder
from .refiner import RefinerLoss, start_from_base
from .sample import CONTACT_SHEET, generate, save_grid
from .text import load_tokenizer, tokenize
from .tokenizer import write_tokenizers
from .trainer import Settings, Trainer
from .vocabulary import Vocabulary, read_vocabulary

_log = logging.getLogger(__name__)
REFINER_EMA: Final = 0.99  # it trains for few steps: its average must not reach back to where it began


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run of the recipe.

    `start` is a folder with ``vae/``, ``tokenizer/`` and ``tokenizer_2/`` to begin from; without it these are trained
    first, under `work`. If it has ``unet/`` and the encoders too, as the ``base/`` of a finished pair has, training
    begins with their weights. `start_refiner` is that pair's ``refiner/``; without it the refiner begins as a copy of
    what it shares with the base.
    """

    assets: Path
    work: Path
    out: Path
    start: Path | None = None
    start_refiner: Path | None = None
    minutes: float = 90.0
    refiner_minutes: float = 15.0
    vae_minutes: float = 85.0
    deadline: float | None = None
    refiner_deadline: float | None = None
    vocabulary: Vocabulary = "core"
    resolution: int = 128
    compositions: int = 28800
    device: str = "cpu"
    seed: int = 0
    model: Miniature = field(default_factory=Miniature)
    settings: Settings = field(default_factory=Settings)


class Run:
    """What the stages share: tokenizers, VAE, modules, data."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = torch.device(recipe.device)
        torch.manual_seed(recipe.seed)
        start = recipe.start or recipe.work / "start"
        self.tokenizers: tuple[CLIPTokenizer, CLIPTokenizer] = (
            load_tokenizer(start / "tokenizer"),
            load_tokenizer(start / "tokenizer_2"),
        )
        self.vae = AutoencoderKL.from_pretrained(str(start / "vae")).eval().requires_grad_(False)
        self.vae.to(self.device, memory_format=torch.channels_last)
        model = replace(recipe.model, vocabulary_size=len(self.tokenizers[0]))
        self.base = nn.ModuleDict(
            {
                "unet": base_unet(model, recipe.resolution),
                "text_encoder": text_encoder(model),
                "text_encoder_2": text_encoder_2(model),
            }
        )
        self.refiner = nn.ModuleDict({"unet": refiner_unet(model, recipe.resolution)})
        for modules in (self.base, self.refiner):
            modules.to(self.device)
            modules["unet"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.device.type == "cpu":
                plain_attention(modules)
        if (start / "unet").exists():
            self._load_base(start)
        if recipe.start_refiner:
            _load(self.refiner["unet"], UNet2DConditionModel, recipe.start_refiner / "unet")
        _log.info(
            "parameters: base U-Net %.2f M, refiner U-Net %.2f M, all %.2f M",
            parameter_count(self.base["unet"]) / 1e6,
            parameter_count(self.refiner["unet"]) / 1e6,
            parameter_count(self.base, self.refiner, self.vae) / 1e6,
        )

    def _load_base(self, folder: Path) -> None:
        for name, kind in (
            ("unet", UNet2DConditionModel),
            ("text_encoder", CLIPTextModel),
            ("text_encoder_2", CLIPTextModelWithProjection),
        ):
            _load(self.base[name], kind, folder / name)

    def buckets(self) -> tuple[Bucket, ...]:
        """The training data."""
        recipe = self.recipe
        return build_buckets(
            read_vocabulary(recipe.assets, recipe.vocabulary),
            self.vae,
            self.tokenizers,
            resolution=recipe.resolution,
            count=recipe.compositions,
            seed=recipe.seed,
            cache=recipe.work / "latents",
            device=self.device,
        )

    def save(self, folder: Path) -> None:
        """Write both folders as they now are."""
        base, refiner = self.pipelines()
        save_folder(base, folder / "base")
        save_folder(refiner, folder / "refiner")

    def pipelines(self) -> tuple[StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline]:
        """Base and refiner pipelines around the modules as they now are."""
        first, second = self.base["text_encoder"], self.base["text_encoder_2"]
        return (
            base_pipeline(self.base["unet"], first, second, self.vae, self.tokenizers),
            refiner_pipeline(self.refiner["unet"], second, self.vae, self.tokenizers[1]),
        )

    def train_base(self, data: tuple[Bucket, ...]) -> bool:
        """Train U-Net and encoders; True when finished."""
        recipe = self.recipe
        loss = BaseLoss(self.base, data, batch=recipe.settings.batch, seed=recipe.seed, device=self.device)

        def report(step: int, progress: float) -> None:
            loss.after_step(progress)  # averaged weights share the untrained positions too
            self._grid(f"base-{step:06d}", with_refiner=False)
            self.save(recipe.work / "latest")

        trainer = Trainer(
            self.base, loss, Budget(minutes=recipe.minutes, deadline=recipe.deadline), recipe.settings,
            recipe.work / "base.pt", report, loss.after_step,
        )  # fmt: skip
        if not trainer.run():
            return False
        trainer.finish()
        self.base.eval().requires_grad_(False)
        self._grid(f"base-{trainer.step:06d}", with_refiner=False)
        self.save(recipe.work / "latest")
        return True

    def train_refiner(self, data: tuple[Bucket, ...]) -> bool:
        """Train the refiner on the finished encoder; True when finished."""
        recipe = self.recipe
        empty = tokenize(self.tokenizers[1], [""])[0]
        if not recipe.start_refiner:
            copied = start_from_base(self.refiner["unet"], self.base["unet"], recipe.model.text.width)
            _log.info("refiner starts with %d tensors of the base", copied)
        loss = RefinerLoss(
            self.refiner, self.base["text_encoder_2"], empty, data,
            batch=recipe.settings.batch, seed=recipe.seed + 1, device=self.device,
        )  # fmt: skip

        def report(step: int, progress: float) -> None:
            self._grid(f"refiner-{step:06d}", with_refiner=True)
            self.save(recipe.work / "latest")

        trainer = Trainer(
            self.refiner, loss, Budget(minutes=recipe.refiner_minutes, deadline=recipe.refiner_deadline),
            replace(recipe.settings, ema_decay=REFINER_EMA), recipe.work / "refiner.pt", report,
        )  # fmt: skip
        if not trainer.run():
            return False
        trainer.finish()
        self.refiner.eval()
        self._grid(f"refiner-{trainer.step:06d}", with_refiner=True)
        return True

    def _grid(self, name: str, *, with_refiner: bool) -> None:
        base, refiner = self.pipelines()
        size = self.recipe.resolution
        with torch.autocast(self.device.type, torch.bfloat16):
            pictures = generate(base, refiner if with_refiner else None, CONTACT_SHEET, height=size, width=size)
        save_grid(pictures, 8, self.recipe.work / "grids" / f"{name}.png")


def run(recipe: Recipe) -> bool:
    """Run all stages, or continue where an earlier run stopped; True when both folders are written."""
    if not (recipe.start or _train_start(recipe)):
        return False
    stages = Run(recipe)
    data = stages.buckets()
    if not (recipe.work / "latest").exists():
        stages.save(recipe.work / "latest")  # the final shapes, for whoever builds on them already
    if not stages.train_base(data):
        return False
    if not stages.train_refiner(data):
        return False
    stages.save(recipe.out)
    return True


def _load(module: nn.Module, kind: type[ModelMixin | PreTrainedModel], folder: Path) -> None:
    module.load_state_dict(kind.from_pretrained(str(folder), torch_dtype=torch.float32).state_dict())


def _train_start(recipe: Recipe) -> bool:
    """Tokenizers and VAE, each once; True when both are there."""
    folder = recipe.work / "start"
    if not (folder / "tokenizer_2").exists():
        write_tokenizers([emoji.name for emoji in read_vocabulary(recipe.assets, "all")], folder)
    if (folder / "vae").exists():
        return True
    # The VAE learns from all pictures, whatever the vocabulary: more shapes and edges, at no cost in names.
    return train_autoencoder(
        read_vocabulary(recipe.assets, "all"), folder, recipe.work, resolution=recipe.resolution,
        minutes=recipe.vae_minutes, seed=recipe.seed, device=torch.device(recipe.device),
    )  # fmt: skip
