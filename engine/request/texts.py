"""A caller's text → what of it is tokenized at which step."""

from dataclasses import dataclass

from ..errors import RequestError
from ..inversion.shelf import Embeddings
from .editing import prompt_schedule
from .limits import LIMITS, show
from .prompt import BREAK, escape, parse_prompt
from .request import Run, Text

MOST_TEXTS = 32
"""Different texts that one prompt may be in turn: each has keys and values of its own in memory."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """How the texts of one call are read."""

    literal: bool
    """Whether brackets and all else are words."""
    steps: int
    """Of the whole call, base and refiner together."""
    embeddings: Embeddings | None = None
    """Words that are vectors; None: there are none."""

    def text(self, name: str, given: object) -> Text:
        """Check and read one text; `name` is its keyword. Raises `RequestError`."""
        given = checked_text(name, given)
        if self.literal:
            # Kept as it would be written with weights, so that the settings in a picture make it again.
            return Text(given=as_words(given, self.embeddings), runs=((given, 1.0),))
        schedule = prompt_schedule(given, self.steps)
        different = dict.fromkeys(text for _, text in schedule)
        if len(different) > MOST_TEXTS:
            raise too_many_texts(name, len(different))
        texts = {text: Text(given=text, runs=self._runs(text)) for text in different}
        if len(texts) == 1:
            return Text(given=given, runs=next(iter(texts.values())).runs)
        changing = tuple((end, texts[text]) for end, text in schedule)
        return Text(given=given, runs=changing[0][1].runs, schedule=changing)

    def _runs(self, text: str) -> tuple[Run, ...]:
        runs = parse_prompt(text)
        if self.embeddings is None:
            return tuple(runs)
        split = self.embeddings.split
        return tuple((piece, run[1]) for run in runs for piece in ([run[0]] if run == BREAK else split(run[0])))

    def optional(self, name: str, given: object) -> Text | None:
        """The same where None is an answer."""
        return None if given is None else self.text(name, given)


def as_words(text: str, embeddings: Embeddings | None) -> str:
    """The prompt that takes all of a text as words."""
    return escape(text if embeddings is None else embeddings.escape(text))


def checked_text(name: str, given: object) -> str:
    """A text of a length that can be read. Raises `RequestError`."""
    if not isinstance(given, str):
        raise RequestError(f"{name} is {show(given)}; give a text")
    if len(given) > LIMITS["characters of a prompt"][1]:
        raise RequestError(
            f"{name} has {len(given)} characters, at most {LIMITS['characters of a prompt'][1]:g} are allowed"
        )
    if any("\ud800" <= character <= "\udfff" for character in given):
        raise RequestError(f"{name} holds a lone surrogate, which is not text; remove it")
    return given


def too_many_texts(what: str, count: int) -> RequestError:
    """The error for a prompt that changes too often."""
    return RequestError(
        f"{what} is {count} different texts in turn, at most {MOST_TEXTS} are allowed; "
        "use fewer changes, or alternations of equal length"
    )
