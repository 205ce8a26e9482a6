"""`a {red|blue} cat, __colour__` → one of the prompts that it stands for, by a seed: the library dynamicprompts.

What a picture was made with is the prompt that came out; it is written into the picture, its template beside it.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..install import needing
from .limits import show

_LEFT = re.compile(r"__[^\s_](?:[^\s_]|_(?!_))*__")
_CHANCE = re.compile(r"\{|__")
_MOST_SEED = 1 << 64


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """How templates become prompts: `folder` has the wildcards' files (`.txt`, a value a line; `.yaml`, `.json`)."""

    folder: Path | None = None

    def expand(self, template: str, seed: int) -> str:
        """The prompt that a template stands for with this seed: the same again, however often.

        Raises `RequestError` for a template that cannot be read, or names a wildcard that is not there.
        """
        if not _CHANCE.search(template):
            return template
        with needing("dynamicprompts", "choosing between {a|b} and __wildcards__", "prompts"):
            from dynamicprompts.generators import RandomPromptGenerator
            from dynamicprompts.wildcards import WildcardManager

        logging.getLogger("dynamicprompts").setLevel(logging.CRITICAL)  # what it would say are errors here
        wildcards = WildcardManager(self.folder)
        try:
            found = RandomPromptGenerator(wildcards, seed=seed % _MOST_SEED).generate(template, 1)
        except RecursionError as error:
            raise RequestError(
                f"{_shown(template)} leads back to itself; a wildcard must not hold its own name"
            ) from error
        except Exception as error:  # its parser's own, KeyError for a variable, ValueError for bounds
            raise RequestError(f"{_shown(template)} is no template ({' '.join(str(error).split())[:200]})") from error
        prompt = str(found[0]) if found else ""
        if left := _LEFT.search(prompt):
            raise RequestError(f"{left[0][:64]} is no wildcard; {self._there(wildcards)}")
        return prompt

    def _there(self, wildcards: Any) -> str:
        if self.folder is None:
            return "name the folder of their files with wildcard_folder (--wildcard-folder)"
        names = sorted(wildcards.get_collection_names())
        return f"{self.folder} has {', '.join(names[:20]) or 'none'}"


def dynamic_of(dynamic: bool, folder: object) -> Dynamic | None:
    """What a call's `dynamic` and `wildcard_folder` ask for; a folder asks by itself. Raises `RequestError`."""
    if folder is None:
        return Dynamic() if dynamic else None
    if not isinstance(folder, str | Path):
        raise RequestError(f"wildcard_folder is {show(folder)}; give the path of a folder")
    path = Path(folder)
    if not path.is_dir():
        raise RequestError(f"wildcard_folder {path} is no folder; give one with a .txt file for each wildcard")
    return Dynamic(folder=path)


def _shown(template: str) -> str:
    return repr(template if len(template) <= 60 else f"{template[:59]}…")
