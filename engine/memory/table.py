"""A memory plan as text."""

from .plan import MemoryPlan
from .sizes import format_bytes


def format_table(plan: MemoryPlan) -> str:
    """The plan as aligned text, one line a phase."""
    lines = [f"{'phase':<24}{'weights':>12}{'working':>12}{'total':>12}  resident"]
    for row in plan.table():
        sizes = "".join(
            f"{format_bytes(int(str(row[k]))):>12}" for k in ("weight_bytes", "working_bytes", "total_bytes")
        )
        names = row["resident"]
        everything = names == sorted(plan.footprints)
        shown = "everything" if everything else ", ".join(names) if isinstance(names, list) else ""
        lines.append(f"{row['phase']:<24}{sizes}  {shown}")
    return "\n".join(lines)
