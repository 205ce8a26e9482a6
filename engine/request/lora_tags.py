"""`<lora:name:0.8>` in prompts, as AUTOMATIC1111 reads them, and the file of a name in a folder that the user named.

`<lora:name>` counts 1, `<lora:name:0.8:0.5>` and `<lora:name:te=0.8:unet=0.5>` count 0.8 in the text encoders and 0.5
in the U-Net. `<lyco:…>` is the same. What else is in angle brackets is text.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from ..errors import RequestError

Weight = float | tuple[float, float]
"""How much a LoRA counts: everywhere, or in the text encoders and in the U-Net."""
SUFFIX = ".safetensors"
MOST_FILES = 100_000
"""That are looked through in a folder."""
MOST_TAGS = 32
_TAG = re.compile(r"<(?:lora|lyco):([^<>]++)>")
_SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class Tag:
    """One LoRA that a prompt names."""

    name: str
    text: float
    """Weight in the text encoders."""
    unet: float


def take_tags(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """The prompt without its tags, and what they say. Linear time.

    Raises `RequestError` for a weight that is no number, and for tags without a name.
    """
    tags = tuple(_tag(match[0], match[1]) for match in islice(_TAG.finditer(prompt), MOST_TAGS + 1))
    if len(tags) > MOST_TAGS:
        raise RequestError(f"the prompt names more than {MOST_TAGS} LoRAs; leave some out")
    return _TAG.sub("", prompt), tags


def tags_in(prompt: str) -> str:
    """The tags of a prompt alone."""
    return "".join(match[0] for match in _TAG.finditer(prompt))


def loras_of(prompt: str, folder: Path) -> tuple[str, dict[str, Weight]]:
    """The prompt without its tags, and the files that they name: path → weight, summed where a name comes twice.

    Raises `RequestError` for a tag that cannot be read and for a name of which `folder` has no file.
    """
    words, tags = take_tags(prompt)
    names = lora_files(folder) if tags else {}
    sums: dict[str, tuple[float, float]] = {}
    for tag in tags:
        text, unet = sums.get(file := str(_file(tag.name, names, folder)), (0.0, 0.0))
        sums[file] = (text + tag.text, unet + tag.unet)
    return words, {file: text if text == unet else (text, unet) for file, (text, unet) in sums.items()}


def lora_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Name → files of that name in a folder and the folders in it, none of which lies outside it by a link."""
    if not folder.is_dir():
        raise RequestError(f"the LoRA folder {folder} does not exist or is no folder; name the one your LoRAs lie in")
    inside = folder.resolve()
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(islice(folder.rglob(f"*{SUFFIX}"), MOST_FILES)):
        if path.is_file() and path.resolve().is_relative_to(inside):
            name = unicodedata.normalize("NFC", path.stem)
            found[name] = (*found.get(name, ()), path)
    return found


def _file(name: str, names: Mapping[str, tuple[Path, ...]], folder: Path) -> Path:
    """Looked up among what is there: a name is never made into a path."""
    files = names.get(unicodedata.normalize("NFC", name), ())
    if len(files) == 1:
        return files[0]
    shown = name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…"
    if files:
        raise RequestError(f"LoRA {shown!r} is in {folder} {len(files)} times; rename one, or give its path by --lora")
    near = get_close_matches(name[:200], names, n=1)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names)[:8]) or 'none'}"
    raise RequestError(f"LoRA {shown!r} of the prompt is not in {folder}; {advice}")


def _tag(written: str, inside: str) -> Tag:
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in inside.split(":"):
        key, equals, value = part.partition("=")
        if equals and positional:
            named[key.strip()] = value
        else:
            positional.append(part)
    name, *weights = (part.strip() for part in positional)
    if not name or len(weights) > 2 or named.keys() - {"te", "unet"}:
        raise RequestError(
            f"{_short(written)} cannot be read; write <lora:name:0.8>, or <lora:name:0.8:0.5> for text encoders and "
            "U-Net"
        )
    text = _number(written, named.get("te", weights[0] if weights else "1"))
    unet = named.get("unet", weights[1] if len(weights) > 1 else None)
    return Tag(name=name, text=text, unet=text if unet is None else _number(written, unet))


def _number(written: str, text: str) -> float:
    try:
        value = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"the weight in {_short(written)} is no number; write <lora:name:0.8>")
    return value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
