"""The run for people: a block for each case, a line for each system, and how many times as long as ours it took."""

from collections.abc import Iterable, Sequence

from .report import Record

OURS = "pocketxl"
"""Names of our systems begin so."""


STARTS = {"compile_seconds": "compiled in", "load_seconds": "loaded in", "first_seconds": "the first of its size in"}
MEMORY = ("peak_device_bytes", "peak_rss_bytes")


def table(records: Sequence[Record]) -> str:
    """Text for standard error."""
    lines = []
    for case in dict.fromkeys(record.case for record in records):
        found = {(r.system, r.metric): r.value for r in records if r.case == case}
        ours = _fastest(
            value for (system, metric), value in found.items() if (system[: len(OURS)], metric) == (OURS, "seconds")
        )
        lines.append(case)
        for system in dict.fromkeys(system for system, _ in found):
            seconds = found[system, "seconds"]
            parts = [f"  {system:36}{seconds * 1e3:10.2f} ms"]
            memory = [found[system, metric] for metric in MEMORY if (system, metric) in found]
            parts.append(f"{memory[0] / 1e9:7.2f} GB" if memory else " " * 10)
            parts.append(f"error {found[system, 'relative_error']:.2e}" if (system, "relative_error") in found else "")
            if ours is not None:
                parts.append(f"{seconds / ours:6.2f} x ours")
            parts += [
                f"({words} {found[system, metric]:.{0 if found[system, metric] > 10 else 1}f} s)"
                for metric, words in STARTS.items()
                if (system, metric) in found
            ]
            lines.append("  ".join(parts))
    return "\n".join(lines) + "\n"


def _fastest(values: Iterable[float]) -> float | None:
    return min(values, default=None)
