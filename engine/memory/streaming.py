"""What it costs to stream: how much a picture has read from the disk, and how fast this disk just was."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..folder.manifest import ComponentEntry, read_manifest
from .plan import MemoryPlan
from .sizes import format_bytes

_PROBE = 256 << 20
_CHUNK = 4 << 20


def told(folder: Path, plan: MemoryPlan) -> Iterator[str]:
    """What is done with less memory, and its price: sentences for people.

    It may read a quarter of a gigabyte of the weights, to see how fast they come. Raises `IntegrityError` and
    `StorageError` as opening the engine does.
    """
    entries = read_manifest(folder).components
    banded = {name for name in plan.streamed if plan.pool == "device" or entries[name].streaming is None}
    if banded:
        yield f"over bands of rows, in less memory: {', '.join(sorted(banded))}"
    if from_disk := {name: entries[name] for name in plan.streamed - banded}:
        yield _price(folder, plan, from_disk)


def _price(folder: Path, plan: MemoryPlan, entries: Mapping[str, ComponentEntry]) -> str:
    sizes = {name: entry.weight_bytes for name, entry in entries.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    weights = max(entries[largest].files, key=lambda file: file.size)
    total, speed = bytes_read(plan, sizes), reading_speed(folder / weights.path)
    return (
        f"streamed from disk: {', '.join(sorted(sizes))}; a picture reads {format_bytes(total)}, which takes "
        f"{total / speed:.0f} s at the {speed / 1e9:.1f} GB/s that the disk (or the system's cache of it) just gave, "
        "while it computes"
    )


def bytes_read(plan: MemoryPlan, weights: Mapping[str, int]) -> int:
    """Bytes that come from the disk for a call in which the components in `weights` (name → bytes) are streamed."""
    workload, found = plan.workload, 0
    for name, size in weights.items():
        kind, _, part = name.rpartition("/")
        # A U-Net has every row alone, at every step and for every picture; the rest has every prompt's rows alone.
        times = workload.images * workload.evaluations.get(kind, 0) if part == "unet" else len(workload.prompt_tokens)
        found += size * workload.rows * times
    return found


def reading_speed(file: Path, most: int = _PROBE) -> float:
    """Bytes a second that come from the middle of a file, at most `most` of them."""
    size = file.stat().st_size
    buffer = memoryview(bytearray(_CHUNK))
    done = 0
    with file.open("rb", buffering=0) as source:
        source.seek(max(0, (size - most) // 2))
        began = time.perf_counter()
        while done < most and (count := source.readinto(buffer)):
            done += count
        return max(done, 1) / max(time.perf_counter() - began, 1e-9)
