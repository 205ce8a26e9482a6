"""Flags for the options of a call: the table's, and those that are names or switches."""

import argparse
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..architecture import Models
from ..errors import RequestError
from ..inversion.shelf import embeddings_in
from ..picture.parameters import read
from ..presets.table import KEYWORDS, PRESETS
from ..request.decoders import DECODERS
from ..request.options import OPTIONS, Form, Option
from ..request.sizes import size_of
from ..request.texts import as_words
from ..runners.ort_providers import PROVIDERS
from ..sampling.samplers.table import SAMPLERS, SCHEDULES
from .lora import loras_of

STEPS = 30
"""The command line's own default: enough for every sampler. In Python it is diffusers' 50, so that a program that moves
here keeps its pictures."""
_TEXTS = {row.name for row in OPTIONS.values() if row.form is Form.TEXT and "prompt" in row.name}
_ALSO = {"num_images_per_prompt": ("-n",), "hires_scale": ("--upscale",)}
"""Other names of flags."""
_TYPES = {Form.TEXT: str, Form.WHOLE: int, Form.NUMBER: float}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of every option that has one."""
    for row in OPTIONS.values():
        if row.flag is not None:
            parser.add_argument(
                *_ALSO.get(row.name, ()), row.flag, dest=row.name, type=_type(row), metavar=_metavar(row), help=row.help
            )
    parser.add_argument("--preset", help=f"sampler, schedule, steps and guidance at once: {', '.join(PRESETS)}")
    parser.add_argument("--sampler", help=f"{', '.join(SAMPLERS)} (default: euler)")
    parser.add_argument("--schedule", help=f"{', '.join(SCHEDULES)} (default: default)")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]",
        help="a LoRA and how much it counts, such as style.safetensors:0.8; may be given several times",
    )  # fmt: skip
    parser.add_argument("--lora-folder", help="where LoRAs lie that the prompt names as <lora:name:0.8>")
    parser.add_argument("--size", help="width and height at once: WIDTHxHEIGHT, or a name such as portrait")
    parser.add_argument("--aspect", help="the same by a ratio such as 3:2 or 16:9 (see `pocketxl list sizes`)")
    parser.add_argument("--decoder", help=f"{' or '.join(DECODERS)}, of an engine with a tiny decoder (default: full)")
    parser.add_argument("--literal", action="store_true", help="prompts are words alone: brackets are no weights")
    parser.add_argument(
        "--embedding-folder", metavar="FOLDER", help="textual inversion: names in prompts are .safetensors files there"
    )
    parser.add_argument("--dynamic", action="store_true", help="{a|b} in prompts is one of them by chance, by the seed")
    parser.add_argument(
        "--wildcard-folder", metavar="FOLDER", help="__name__ in prompts is a line of name.txt there, by the seed"
    )
    parser.add_argument("--no-refiner", action="store_true", help="let the base walk to the end")


def add_provider(parser: argparse.ArgumentParser) -> None:
    """Declare what of ONNX Runtime computes."""
    parser.add_argument(
        "--provider",
        help=f"of ONNX Runtime: {', '.join(PROVIDERS)} (default: for an engine in half precision the first that is "
        "here, for others cpu)",
    )


def options_of(
    args: argparse.Namespace, models: Models, defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The keywords that the flags stand for, over `defaults` (a picture's); the rest is left to the call's own."""
    names = [*(row.name for row in OPTIONS.values() if row.flag is not None), "sampler", "schedule", "preset"]
    names += ["lora_folder", "decoder"]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if (size := args.aspect if args.size is None else args.size) is not None:
        if "width" in given or "height" in given or None not in (args.size, args.aspect):
            raise RequestError("--aspect and --size stand for --width and --height; give one or the other")
        given["width"], given["height"] = _size(size, models)
    kept = {"num_inference_steps": STEPS, "refiner": True, **defaults}
    if args.preset is not None:  # counts instead of a picture's settings too
        kept = {name: value for name, value in defaults.items() if name not in {*KEYWORDS, "sigmas", "denoising_end"}}
    if args.no_refiner:
        kept["refiner"] = False
        kept.pop("denoising_end", None)  # the base walks to the end
    if {"num_inference_steps", "schedule"} & given.keys():
        kept.pop("timesteps", None)
        kept.pop("sigmas", None)
    if args.dynamic or args.wildcard_folder is not None:
        if args.literal:
            raise RequestError("--literal and --dynamic were both given; braces are words, or a choice")
        given |= {"dynamic": True, "wildcard_folder": args.wildcard_folder}
    if args.embedding_folder is not None:
        given["embedding_folder"] = args.embedding_folder
    if args.lora:
        given["loras"] = loras_of(args.lora)
    if args.literal:
        given.pop("lora_folder", None)  # tags are words too
        given |= {name: words_of(given[name], args, models) for name in _TEXTS & given.keys()}
    return {**kept, **given}


def words_of(text: str, args: argparse.Namespace, models: Models) -> str:
    """A text of `--literal`, written as a prompt."""
    return as_words(text, embeddings_in(args.embedding_folder, models))


def _size(text: str, models: Models) -> tuple[int, int]:
    """(width, height) by a bucket's name, scaled to the model, or in pixels."""
    if not re.fullmatch(r"\s*\d{1,6}\s*[xX×]\s*\d{1,6}\s*", text):
        return size_of(text, native=models.native_size)
    height, width = read(Form.SIZE, "--size", re.sub("[X×]", "x", text))
    return width, height


def _type(row: Option) -> Any:
    if row.form in _TYPES:
        return _TYPES[row.form]

    def convert(text: str) -> Any:
        return read(row.form, str(row.flag), text)

    convert.__name__ = _metavar(row)  # argparse names it in its message
    return convert


def _metavar(row: Option) -> str:
    name = str(row.flag).strip("-").replace("-", "_").upper()
    return {Form.SIZE: "WIDTHxHEIGHT", Form.POINT: "'TOP LEFT'"}.get(row.form, name)
