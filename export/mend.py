"""A damaged or outdated engine: what of it is used again, and when its description holds again."""

from collections.abc import Mapping
from typing import Any

from ..engine.folder.manifest import ComponentEntry, Manifest
from ..engine.folder.schema import encode
from .publish.existing import Existing
from .publish.workspace import Finished, Workspace
from .target import FACTS, FOUND


def intact_components(found: Existing, keys: Mapping[str, str]) -> dict[str, Finished]:
    """The components of a damaged engine, or of one built from other parts, that can be taken over as they are.

    Of the latter those that depend on nothing that has changed.
    """
    there = found.manifest or found.outdated
    return {
        name: Finished(key=keys[name], files=entry.files, facts=encode(_facts(entry)))
        for name, entry in ({} if there is None else there.components).items()
        if name in keys
        and (entry.key == keys[name] or (found.manifest is not None and not entry.key))
        and not found.damaged & {file.path for file in entry.files}
    }


def mended(damaged: Manifest, made: Manifest, space: Workspace) -> bool:
    """True if what was made anew is to the byte what the damaged engine was, whose figures are then true again.

    Its samples are then taken over; one that is damaged too takes a run of the reference, so that the answer is no.
    """
    return (
        made.tokenizers == damaged.tokenizers
        and made.components.keys() == damaged.components.keys()
        and all(made.components[name].files == entry.files for name, entry in damaged.components.items())
        and all(entry.sample is not None and space.bring(entry.sample) for entry in damaged.components.values())
    )


def _facts(entry: ComponentEntry) -> dict[str, Any]:
    """What lowering said of the component, as `build` keeps it in the work folder."""
    return {name: getattr(entry, name) for name in (*FACTS, *FOUND)}
