"""`pocketxl inspect`: what an engine folder, a picture or an adapter says about itself."""

import argparse
from pathlib import Path

from ..errors import RequestError, StorageError
from ..folder.manifest import read_manifest
from ..memory.sizes import format_bytes
from ..miniature import engine_folder
from ..picture.files import read_picture, read_settings
from ..picture.parameters import HASH_DIGITS
from ..stored.header import SUFFIXES
from .adapter import show_adapter
from .base import Command, emit, say
from .formats import halvings, more_bits, summary, table


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="?", help="engine folder, picture or .safetensors adapter (default: the bundled miniature)"
    )
    parser.add_argument("--layers", action="store_true", help="which numbers the layers of each kind have")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    path = engine_folder(args.path)
    if not path.exists():
        raise StorageError(f"{path} does not exist; give an engine folder, a picture or an adapter")
    if path.is_dir():
        _engine(path, args.json, args.layers)
    elif args.layers:
        raise RequestError(f"{path} is no engine folder, and only an engine has layers; leave --layers out")
    elif path.suffix.lower() in SUFFIXES:
        show_adapter(path, args.json)
    else:
        _picture(path, args.json)
    return 0


def _picture(path: Path, as_json: bool) -> None:
    header = read_picture(path)
    settings = read_settings(path)
    if as_json:
        emit("picture", path=str(path), width=header.width, height=header.height, parameters=settings)
    elif header.parameters is None and settings:
        say("\n".join(f"{name}: {value}" for name, value in settings.items()), lines=True)
    elif header.parameters is None:
        say(f"{path}: {header.width}x{header.height}, no generation parameters inside")
    else:
        say(header.parameters, lines=True)


def _engine(folder: Path, as_json: bool, layers: bool) -> None:
    manifest = read_manifest(folder)
    size = sum(file.size for file in manifest.files)
    native = manifest.models.native_size if manifest.models.denoisers else None
    if as_json:
        emit(
            "engine", path=str(folder), digest=manifest.digest, target=manifest.target, recipe=manifest.recipe,
            models=sorted(manifest.models.denoisers),
            native_size=native, size_bytes=size, quality=dict(manifest.quality),
            components={
                name: {
                    "weight_bytes": entry.weight_bytes, "runner": entry.runner, "quality": dict(entry.quality),
                    "formats": {format: list(names) for format, names in entry.formats.items()},
                    "more_bits": dict(entry.more_bits), "halvings": dict(entry.halvings),
                    "architectures": {file: list(names) for file, names in entry.architectures.items()},
                }
                for name, entry in manifest.components.items()
            },
            companion=None if manifest.companion is None else manifest.companion.kind,
            tools=dict(manifest.tools), created_by=manifest.created_by, measured_on=manifest.measured_on,
        )  # fmt: skip
        return
    upscaler = None if manifest.companion is None else manifest.companion.upscaler
    what = " + ".join(sorted(manifest.models.denoisers)) if upscaler is None else upscaler.title
    shown = "" if native is None else f"native {native}x{native}, "
    say(f"{folder}: {what}, {manifest.recipe} for {manifest.target}, {format_bytes(size)}, {shown}"
        f"model hash {manifest.digest[:HASH_DIGITS]}")  # fmt: skip
    if manifest.companion is not None:
        say(f"{manifest.companion.kind}, for use beside an engine")
    found = [names for entry in manifest.components.values() for names in entry.architectures.values()]
    if found:
        say(f"for GPUs of the generations {', '.join(sorted({a for names in found for a in names}, key=_number))}")
    for name, entry in manifest.components.items():
        error = f"relative error {entry.quality['relative_error']:.2g}" if entry.quality else "no figures"
        say(f"  {name:<20} {entry.runner:<9} {format_bytes(entry.weight_bytes):>10}  {error}")
        for line in (summary(entry), more_bits(entry), halvings(entry), *(table(entry) if layers else ())):
            if line:
                say(f"    {line}")
    if manifest.measured_on:
        say(f"measured on {manifest.measured_on}")
    if manifest.quality:
        say(
            f"short run against the unquantized model: {manifest.quality['psnr_db']:.1f} dB"
            + (f", SSIM {manifest.quality['ssim']:.3f}" if "ssim" in manifest.quality else "")
        )
    say(f"made by {manifest.created_by} with " + ", ".join(f"{n} {v}" for n, v in sorted(manifest.tools.items())))


def _number(architecture: str) -> int:
    """`sm89` → 89."""
    return int(architecture.removeprefix("sm"))


command = Command(
    help="show what an engine folder holds, the settings inside a picture, or what an adapter is",
    example="pocketxl inspect apple.png",
    configure=_configure,
    run=_run,
)
