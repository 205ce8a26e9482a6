"""Which numbers the layers of a component have, for people."""

import re
from collections import Counter

from ..folder.manifest import ComponentEntry
from ..memory.sizes import format_bytes


def summary(entry: ComponentEntry) -> str:
    """`724 w8a8_dynamic, 19 w8a8_group, 12 wf32`; empty where an engine does not say."""
    return ", ".join(f"{len(names)} {format}" for format, names in sorted(entry.formats.items(), key=_most_first))


def more_bits(entry: ComponentEntry) -> str:
    """What layers that needed more than the recipe's own format cost, in one line; empty if none did."""
    if not entry.more_bits:
        return ""
    layers, cost = int(entry.more_bits["layers"]), entry.more_bits["bytes"]
    size = f"{'-' if cost < 0 else '+'}{format_bytes(abs(int(cost)))}"
    return (
        f"{layers} of them with more bits than the recipe's own: {size}, {entry.more_bits['time']:+.1%} time (estimate)"
    )


def halvings(entry: ComponentEntry) -> str:
    """Where outputs are divided to stay in float16's range, in one line; empty if nowhere."""
    if not entry.halvings:
        return ""
    most = max(map(abs, entry.halvings.values()))
    return f"{len(entry.halvings)} tensors scaled by up to 2^{most} for float16's range, and back behind"


def table(entry: ComponentEntry) -> list[str]:
    """A line for each kind of place in the network: what it is called, how many layers, which numbers."""
    places: dict[str, Counter[str]] = {}
    for format, names in entry.formats.items():
        for name in names:
            places.setdefault(_place(name), Counter())[format] += 1
    width = max(map(len, places), default=0)
    return [
        f"{place:<{width}}  " + ", ".join(f"{count} {format}" for format, count in found.most_common())
        for place, found in sorted(places.items())
    ]


def _place(name: str) -> str:
    """`up_blocks.0.attentions.1.transformer_blocks.3.ff.net.2` → `ff.net.2`; `…resnets.0.conv1` → `resnets.conv1`."""
    for marker in ("transformer_blocks", "layers"):
        name = re.sub(rf".*\.{marker}\.\d+\.", "", name)
    return re.sub(r"^(?:down_blocks|up_blocks|mid_block|decoder)\..*?([a-z]+s)\.\d+\.", r"\1.", name)


def _most_first(item: tuple[str, tuple[str, ...]]) -> tuple[int, str]:
    return -len(item[1]), item[0]
