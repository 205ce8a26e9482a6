"""The order of the stages: tokenizers, VAE, latents, base, refiner; each is skipped when its result is there."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from ...engine.errors import IncompatibleError
from .autoencoder import train_autoencoder
from .budget import Budget
from .latents import Bucket, build_buckets
from .models import base_unet, parameter_count, refiner_unet, text_encoder, text_encoder_2
from .package import base_pipeline, refiner_pipeline, save_folder
from .recipe import TrainingRecipe, check
from .refiner import RefinerLoss, start_from_base
from .sample import CONTACT_SHEET, generate, save_grid
from .sdxl_base import BaseLoss, plain_attention
from .text import load_tokenizer, tokenize
from .tokenizer import write_tokenizers
from .trainer import Trainer
from .vocabulary import read_vocabulary

_log = logging.getLogger(__name__)
Loaded = TypeVar("Loaded", bound=ModelMixin | PreTrainedModel)
REFINER_EMA: Final = 0.99  # in a short run a longer average would reach back to where it began


class Run:
    """What the stages share: tokenizers, VAE, modules, data."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self.recipe = recipe
        self.device = torch.device(recipe.device)
        torch.manual_seed(recipe.seed)
        start = recipe.start or recipe.work / "start"
        self.tokenizers: tuple[CLIPTokenizer, CLIPTokenizer] = (
            load_tokenizer(start / "tokenizer"),
            load_tokenizer(start / "tokenizer_2"),
        )
        self.vae = read_model(AutoencoderKL, start / "vae").eval().requires_grad_(False)
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


def run(recipe: TrainingRecipe) -> bool:
    """Run all stages, or continue where an earlier run stopped; True when both folders are written.

    Raises `RequestError`: a field of the recipe is outside what is allowed; nothing was done. Raises
    `IncompatibleError`: a checkpoint or a start folder belongs to another architecture. Raises `IntegrityError`: a
    checkpoint cannot be read.
    """
    check(recipe)
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


def read_model(kind: type[Loaded], folder: Path) -> Loaded:
    """A model from its folder on this disk, in float32; safetensors only.

    Raises `IncompatibleError`: the folder does not hold such a model.
    """
    try:
        model: Loaded = kind.from_pretrained(
            str(folder.resolve()), dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise IncompatibleError(
            f"{folder} holds no {kind.__name__}: {error}; give a folder that this recipe made"
        ) from error
    return model


def _load(module: nn.Module, kind: type[ModelMixin | PreTrainedModel], folder: Path) -> None:
    weights = read_model(kind, folder).state_dict()
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise IncompatibleError(f"{folder} has another architecture than the recipe; start without it")
    module.load_state_dict(weights)


def _train_start(recipe: TrainingRecipe) -> bool:
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
