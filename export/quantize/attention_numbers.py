"""Self-attention in 8 bits, e4m3 or int8: its numbers, by what its layers have shown."""

from .attention_places import PROJECTIONS, Numbers
from .calibration import Calibration
from .formats import Format
from .query_keys import QueryKeys
from .score_blocks import ScoreBlocks
from .signed_ranges import float8_step
from .unseen import beyond


def attention_numbers(name: str, format: Format, seen: Calibration, heads: int) -> Numbers | None:
    """Of the attention of that name in that format, whose layers are watched; None if they were not.

    8-bit floats have steps for queries, keys and values, integers round queries and keys alone.
    """
    found = [layer for part in PROJECTIONS if (layer := seen.layers.get(f"{name}.{part}")) is not None]
    if len(found) < len(PROJECTIONS):
        return None
    assert format.weight is not None
    if format.weight.kind == "int" and format.static:
        return QueryKeys.of(found[0], found[1])
    if format.weight.kind == "int":
        room = beyond(found[2].output_lows, found[2].output_highs)
        return ScoreBlocks(heads=heads, values=float(found[2].output_size.max(initial=0) * room))
    steps = [float8_step(float(layer.output_size.max(initial=0))) for layer in found]
    return (steps[0], steps[1], steps[2])
