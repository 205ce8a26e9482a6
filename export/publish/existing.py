"""What lies at a destination already: an engine that can stay, one that is damaged or outdated, or somebody's files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import PocketXLError, StorageError
from ...engine.folder.files import hash_file, is_litter
from ...engine.folder.manifest import FILE_NAME, Manifest, read_manifest
from ...engine.progress import Progress, Silent, track
from .destination import clear_published, real, recover, tidy
from .keys import explain_miss

# What lies at the top of an engine folder whose own description cannot be read.
ENGINE_NAMES = frozenset(
    {
        FILE_NAME,
        "tokenizer",
        "tokenizer_2",
        "text_encoder",
        "text_encoder_2",
        "base",
        "refiner",
        "vae_decoder",
        "vae_encoder",
        "control",
        "image_prompt",
        "t2i_adapter",
        "tiny_decoder",
        "upscaler",
    }
)


@dataclass(frozen=True, kw_only=True)
class Existing:
    """What `find_engine` found. `reasons`, one line each: why it cannot stay as it is; none if it can."""

    manifest: Manifest | None = None
    """Of an engine that was built from the same parts, whole or damaged."""
    outdated: Manifest | None = None
    """Of one that was built from others. What of it is used again is hashed when it is."""
    damaged: frozenset[str] = frozenset()
    """Its files that are missing or altered."""
    reasons: tuple[str, ...] = ()


def find_engine(destination: Path, parts: Mapping[str, str], progress: Progress | None = None) -> Existing:
    """Look for an engine at `destination` that was built from `parts` (see `keys.build_parts`).

    Every file of it is hashed: an engine is only called up to date if all of its bytes are. Nothing is written where
    nothing is left over, so that it works on read-only media.
    """
    destination = real(destination)
    if not destination.exists():
        tidy(destination, recover)
    if not destination.is_dir() or not any(destination.iterdir()):
        return Existing(reasons=(f"there is no engine at {destination} yet",))
    try:
        manifest = read_manifest(destination)
    except PocketXLError as error:
        return Existing(reasons=(str(error),))
    if changed := explain_miss(manifest.build_key, parts):
        return Existing(outdated=manifest, reasons=tuple(changed))
    damage = _damage(destination, manifest, progress or Silent())
    if not damage:
        tidy(destination, clear_published)
    return Existing(manifest=manifest, damaged=frozenset(damage), reasons=tuple(damage.values()))


def refuse_foreign(destination: Path) -> None:
    """Raise `StorageError` if replacing `destination` would delete somebody's file; what the system strews is none."""
    if not destination.exists():
        return
    if not destination.is_dir():
        raise StorageError(f"{destination} is a file; choose a new or empty folder")
    if destination.is_mount():
        raise StorageError(f"{destination} is a mount point, which cannot be replaced; choose a folder inside it")
    names = {path.name for path in destination.iterdir() if not is_litter(path.name)}
    foreign = sorted(names - ENGINE_NAMES)
    if foreign or (names and FILE_NAME not in names):
        raise StorageError(
            f"{destination} is not an engine folder (it holds {', '.join(foreign[:3] or sorted(names)[:3])}), so it is "
            "not replaced; move what is yours elsewhere, or choose a new or empty folder"
        )
    try:
        strange = read_manifest(destination).strangers_in(destination)
    except PocketXLError:
        return  # without a description nobody can say which of the files below are its own
    if strange:
        raise StorageError(
            f"{destination} also holds {', '.join(strange[:3])}, which is no part of the engine and would be lost with "
            "it, so it is not replaced; move what is yours elsewhere, or choose another folder"
        )


def _damage(destination: Path, manifest: Manifest, progress: Progress) -> dict[str, str]:
    """Damaged file → what is wrong with it."""
    found = {}
    with track(progress, "verify", total=sum(entry.size for entry in manifest.files), unit="B") as advance:
        for entry in manifest.files:
            try:
                hash_file(destination, entry, advance)
            except PocketXLError as error:
                found[entry.path] = str(error)
    return found
