"""Names and pictures: which emoji the miniature learns, and what they are called."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...engine.errors import RequestError

Vocabulary = Literal["core", "all"]

# Flags are texts and stripes, keycaps and buttons are letters; skin tones would be five pictures under nearly one name.
_LEFT_OUT = re.compile(r"\bflags?\b|keycap|button|skin tone")
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One named picture: a 256x256 RGBA file of the asset package."""

    name: str
    path: Path


def code_points(stem: str) -> tuple[int, ...] | None:
    """The code points that a file name such as `1f469-200d-1f33e` spells, or None if it spells none."""
    try:
        points = tuple(int(part, 16) for part in stem.split("-"))
    except ValueError:
        return None
    return points if all(0 < point < 0x110000 for point in points) else None


def is_wanted(name: str, points: tuple[int, ...]) -> bool:
    """Whether a picture belongs to the vocabulary: no flag, keycap, button or skin-tone variant."""
    return not _LEFT_OUT.search(name) and not any(point in _REGIONAL_INDICATORS for point in points)


def name_of(points: tuple[int, ...]) -> str | None:
    """The English name in lower case of a code-point sequence, by the `emoji` package; None if it knows none."""
    import emoji  # only the recipe needs it, never the runtime

    text = "".join(map(chr, points))
    for spelling in (text, text.replace("\ufe0f", ""), text + "\ufe0f"):
        entry = emoji.EMOJI_DATA.get(spelling)
        if entry:
            return str(entry["en"]).strip(":").replace("_", " ").replace("\u2019", "'").lower()
    return None


def core_names() -> tuple[str, ...]:
    """The hand-picked names of the core vocabulary, in the order of `core.txt`."""
    lines = (Path(__file__).parent / "core.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def read_vocabulary(assets: Path, vocabulary: Vocabulary = "all") -> tuple[Emoji, ...]:
    """All wanted emoji of the folder of `.webp` files, one per name, sorted by file name.

    Raises `RequestError`: the folder holds no named picture, or lacks one of the core names.
    """
    found: dict[str, Emoji] = {}
    for path in sorted(assets.glob("*.webp")):
        points = code_points(path.stem)
        name = name_of(points) if points else None
        # Two spellings of one emoji (with and without the variation selector) are the same picture: keep the first.
        if points and name and is_wanted(name, points) and name not in found:
            found[name] = Emoji(name=name, path=path)
    if not found:
        raise RequestError(f"no named picture in {str(assets)!r}; give the folder that holds the package's .webp files")
    return tuple(found.values()) if vocabulary == "all" else _pick(found, core_names())


def _pick(found: dict[str, Emoji], names: Iterable[str]) -> tuple[Emoji, ...]:
    missing = [name for name in names if name not in found]
    if missing:
        raise RequestError(f"core names without a picture: {missing}; the asset package and core.txt disagree")
    return tuple(found[name] for name in names)
