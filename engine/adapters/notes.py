"""What an adapter file says of itself, read from its header alone: kind, model, ranks, layers, trigger words."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..stored.header import Header, StoredTensor
from .families import instead, made_for
from .keys import BIAS, MAGNITUDE, TE1, TE2, UNET, read_key
from .kinds import kind_of, shapes_of

MOST_WORDS = 12
_PLACES = {UNET: "U-Net", TE1: "text encoder 1", TE2: "text encoder 2"}
_KINDS = {MAGNITUDE: "DoRA", "ia3": "(IA)³", "oft": "OFT", "glora": "GLoRA"}
_TITLES = ("modelspec.title", "ss_output_name")
_MODELS = ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")


@dataclass(frozen=True, kw_only=True)
class Notes:
    """One file."""

    kinds: Mapping[str, int]
    """`LoRA`, `LoHa`, … → how many layers have it; empty for a file that is no adapter of layers."""
    family: str | None
    """Whose model it is for, as keys and shapes tell."""
    instead: str | None
    """What the file is, where it is no adapter of layers."""
    places: Mapping[str, int]
    """`U-Net`, `text encoder 1`, … → how many layers of it."""
    ranks: Mapping[int, int]
    """Rank → how many layers have it."""
    dtypes: tuple[str, ...]
    title: str | None
    model: str | None
    """The model that it was trained on, as its notes name it."""
    words: tuple[str, ...]
    """Trigger words: those that its author names, else the most frequent tags of its training pictures."""
    others: int
    """Keys that are of no known kind."""


def read_notes(header: Header) -> Notes:
    """What a header tells. Takes any sound header; notes that cannot be understood are passed over."""
    modules: dict[tuple[str, str], dict[str, StoredTensor]] = {}
    others = 0
    for key, stored in header.tensors.items():
        read = read_key(key)
        if read is None:
            others += 1
        else:
            modules.setdefault(read[:2], {})[read.part] = stored
    kinds: Counter[str] = Counter()
    places: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    for (place, _), parts in modules.items():
        special = next((name for part, name in _KINDS.items() if part in parts), None)
        kind = kind_of(parts)
        if special is None and kind is None:
            others += len(parts.keys() - {BIAS})
            continue
        kinds[special or (kind.name if kind else "")] += 1
        places[_PLACES[place]] += 1
        rank = _rank(parts)
        if rank:
            ranks[rank] += 1
    notes = header.metadata
    return Notes(
        kinds=dict(kinds.most_common()),
        family=made_for(header.tensors),
        instead=None if kinds else instead(header.tensors),
        places=dict(places),
        ranks=dict(ranks.most_common()),
        dtypes=tuple(sorted({stored.dtype for stored in header.tensors.values()})),
        title=next((notes[name] for name in _TITLES if notes.get(name)), None),
        model=next((notes[name] for name in _MODELS if notes.get(name)), None),
        words=_words(notes),
        others=others,
    )


def _rank(parts: Mapping[str, StoredTensor]) -> int:
    kind = kind_of(parts)
    try:
        return 0 if kind is None else kind.rank(shapes_of(parts))
    except (KeyError, IndexError):
        return 0


def _words(notes: Mapping[str, str]) -> tuple[str, ...]:
    phrase = notes.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return (phrase,)
    try:
        folders = json.loads(notes.get("ss_tag_frequency", "{}"))
    except (ValueError, RecursionError):
        return ()
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool):
                counts[tag.strip()] += count
    return tuple(tag for tag, _ in counts.most_common(MOST_WORDS))
