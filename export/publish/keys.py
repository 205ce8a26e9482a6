"""What a build depends on, part by part, so that an unchanged build is recognised and a changed one says why."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ...engine.folder.manifest import FORMAT
from ...engine.folder.schema import encode

_ABSENT = "(none)"


def build_parts(
    *, sources: Mapping[str, str], target: str, recipe: Any, configuration: Any, libraries: Iterable[str]
) -> dict[str, str]:
    """Everything that an engine depends on, but for the rounding of machines and threads: part → short text or digest.

    `sources`: weights' digest by component (`base.unet` → sha256); `recipe` and `configuration`: any data that
    `schema.encode` takes (architectures, calibration settings); `libraries`: distributions. No paths and no times, so
    that equal checkpoints in different forms and places have equal parts.
    """
    return {
        **{f"weights of {name}": digest for name, digest in sources.items()},
        "target": target,
        "recipe": getattr(recipe, "name", str(recipe)),
        "recipe content": digest_of(recipe),
        "configuration": digest_of(configuration),
        "exporter": exporter_digest(),
        "engine format": str(FORMAT),
        **{f"library {name}": version for name, version in library_versions(libraries).items()},
    }


def component_key(parts: Mapping[str, str], sources: Iterable[str], **extra: Any) -> str:
    """The key of one component: all parts but the weights of models other than `sources`, and what is its alone."""
    used = {f"weights of {name}" for name in sources}
    return digest_of({"extra": extra, "parts": {k: v for k, v in parts.items() if k in used or "weights of" not in k}})


def explain_miss(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """One line for each part that changed: `recipe: int8 -> fp32`."""
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if "recipe" in changed:  # another name says it all
        changed = [name for name in changed if name != "recipe content"]
    return [f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in changed]


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions; `(none)` for a library that is not there."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = _ABSENT
    return found


_SHAPES = (
    "specs", "topology", "architecture", "companion", "image_prompt", "t2i_adapter", "upscaler", "bands/program",
)  # fmt: skip
"""Modules of the engine that say what shape components have."""


def exporter_digest() -> str:
    """Digest of the source text that shapes an engine: `export/`, models and architectures.

    The text rather than a version number, because a forgotten bump would serve a stale engine, which costs far more
    than one build too many. The miniature's own data is left out: its weights are a source like any other.
    """
    root = Path(__file__).parents[2]
    folders = (root / "export", root / "engine" / "models")
    paths = [p for folder in folders for p in folder.rglob("*") if p.suffix in (".py", ".json")]
    digest = hashlib.sha256()
    shapes = [root / "engine" / f"{name}.py" for name in _SHAPES]
    for path in sorted([*paths, *shapes]):
        relative = path.relative_to(root)
        if "miniature" not in relative.parts and path.name not in ("cli.py", "options.py"):
            text = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{relative.as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def digest_of(data: Any) -> str:
    """sha256 of the canonical JSON of plain data and dataclasses."""
    return hashlib.sha256(json.dumps(encode(data), sort_keys=True).encode()).hexdigest()


def _short(value: str | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value[:12]}…" if len(value) == 64 else value
