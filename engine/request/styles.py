"""Styles: texts around a prompt, by name, in AUTOMATIC1111's `styles.csv`.

    name,prompt,negative_prompt
    sketch,"pencil sketch of {prompt}, rough lines","photo, color"

What a file may be is bounded, and a row with more cells than columns (a comma without quotes) is refused, because its
prompt would be cut off there.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import IntegrityError, RequestError, StorageError

PLACE = "{prompt}"
MOST_BYTES = 4 << 20
MOST_STYLES = 10_000
_COLUMNS = "name, prompt and negative_prompt"


@dataclass(frozen=True, kw_only=True)
class Style:
    """One row of a styles file."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""

    def apply(self, prompt: str, negative_prompt: str | None = None) -> tuple[str, str | None]:
        """Both texts inside the style's: in the place of `{prompt}`, or else before it, with a comma between."""
        negative = _joined(self.negative_prompt, negative_prompt or "")
        return _joined(self.prompt, prompt), negative if self.negative_prompt else negative_prompt


def read_styles(path: str | Path) -> dict[str, Style]:
    """The styles of a file by name, in its order; of two with one name the last counts, as in AUTOMATIC1111.

    UTF-8, with or without a byte-order mark; columns `name`, `prompt` (or `text`, of old files) and, if any,
    `negative_prompt`, others are passed over, and so are rows without a name. Raises `StorageError` for a file that
    cannot be read, and `IntegrityError` for one that is something else.
    """
    path = Path(path)
    text = _text(path)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        prompt = columns.get("prompt", columns.get("text"))
        if "name" not in columns or prompt is None:
            raise IntegrityError(f"{path} has no columns {_COLUMNS} in its first line; give a styles file")
        negative = columns.get("negative_prompt")
        found: dict[str, Style] = {}
        for row in rows:
            if None in row:
                raise IntegrityError(
                    f"{path} has more cells than columns in line {rows.line_num}; put texts with commas in quotes"
                )
            name = (row[columns["name"]] or "").strip()
            if name:
                said = (row[prompt] or "", "" if negative is None else row[negative] or "")
                found.pop(name, None)
                found[name] = Style(name=name, prompt=said[0], negative_prompt=said[1])
            if len(found) > MOST_STYLES:
                raise IntegrityError(f"{path} has more than {MOST_STYLES} styles; split it")
    except csv.Error as error:
        raise IntegrityError(f"{path} cannot be read as a styles file ({error}); its columns are {_COLUMNS}") from error
    return found


def find_styles(styles: dict[str, Style], names: Sequence[str]) -> list[Style]:
    """Those named, in the order of `names` and in any case. Raises `RequestError` with the nearest or all names."""
    plain = {name.casefold(): style for name, style in styles.items()}
    found = []
    for name in names:
        style = styles.get(name) or plain.get(name.strip().casefold())
        if style is None:
            from difflib import get_close_matches

            near = get_close_matches(name[:64], styles, n=1)
            known = f"did you mean {near[0][:64]!r}" if near else f"there are {', '.join(styles)[:200] or 'none'}"
            raise RequestError(f"style {name[:64]!r} is not in the styles file; {known}")
        found.append(style)
    return found


def _joined(style: str, text: str) -> str:
    if PLACE in style:
        return style.replace(PLACE, text)
    return ", ".join(part for part in (text.strip(), style.strip()) if part)


def _text(path: Path) -> str:
    if not path.is_file():  # neither a folder nor what would never end
        raise StorageError(f"{path} is no file; give a styles file (CSV with {_COLUMNS})")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise IntegrityError(f"{path} has more than {MOST_BYTES >> 20} MiB, which no styles file has; give another")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
