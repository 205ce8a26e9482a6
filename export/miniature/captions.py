"""The grammar of captions: what a prompt for the miniature looks like."""

from typing import Final

# Named backgrounds and their sRGB values.
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (255, 255, 255),
    "black": (12, 12, 14),
    "red": (208, 46, 46),
    "blue": (46, 96, 208),
    "green": (52, 160, 76),
    "yellow": (246, 208, 60),
    "pink": (246, 150, 190),
    "purple": (130, 70, 190),
    "orange": (240, 140, 40),
    "gray": (140, 140, 146),
    "teal": (30, 150, 150),
    "brown": (120, 80, 50),
}

# Sounds decide, not letters: a unicorn, a hourglass is wrong.
_AN_BEFORE: Final = ("hour", "x-ray")
_A_BEFORE: Final = ("uni", "one", "euro", "uk", "ufo", "use", "ute")
# Plurals and stuff that is not counted take no article; a last word that ends in s is not enough to tell (bus, cactus).
_NO_ARTICLE: Final = frozenset(
    {"bacon", "beans", "blueberries", "books", "bread", "broccoli", "bubbles", "cherries", "fire", "fries", "garlic"}
    | {"glasses", "gloves", "goggles", "grapes", "headphones", "jeans", "pancakes", "popcorn", "scissors", "shorts"}
    | {"skis", "socks", "sushi"}
)


def with_article(name: str) -> str:
    """The name with its article: `an elephant`, `a unicorn`, `an hourglass done`, and `grapes` as it is."""
    word = name.lower()
    if word.split()[-1:] and word.split()[-1] in _NO_ARTICLE and " with " not in word:
        return name
    vowel = word[:1] in {"a", "e", "i", "o", "u"} and not word.startswith(_A_BEFORE)
    return f"{'an' if vowel or word.startswith(_AN_BEFORE) else 'a'} {name}"


def one(name: str, colour: str, size: str = "") -> str:
    """`a red apple on a blue background`; size is "", "small" or "large"."""
    thing = with_article(f"{size} {name}" if size else name)
    return f"{thing} on {with_article(colour)} background"


def two(left: str, right: str, colour: str, *, mirrored: bool = False) -> str:
    """`a robot to the left of a pizza on a white background`; mirrored says the same from the right-hand object."""
    first, side, second = (right, "right", left) if mirrored else (left, "left", right)
    return f"{with_article(first)} to the {side} of {with_article(second)} on {with_article(colour)} background"
