"""What Linux tells of its processors, in /sys, and of the limits of a container (cgroup versions 1 and 2)."""

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from .cores import Processors


def linux_processors(root: Path, allowed: Collection[int]) -> Processors:
    """`root`: of the file system. `allowed`: numbers of the hardware threads in the process's affinity (not empty)."""
    cpu = root / "sys/devices/system/cpu"
    online = cpu_list(_text(cpu / "online")) or frozenset(allowed)
    core_of = {number: _core(cpu, number) for number in allowed}
    return Processors(
        machine=max(len(online), len(allowed)),
        allowed=len(allowed),
        cores=len(set(core_of.values())),
        fast=len({core_of[number] for number in _fast(root, allowed)}),
        quota=container_quota(root),
    )


def cpu_list(text: str | None) -> frozenset[int]:
    """`0-3,8` → {0, 1, 2, 3, 8}; what is not such a list is empty."""
    found: set[int] = set()
    try:
        for part in (text or "").strip().split(","):
            first, dash, last = part.partition("-")
            found |= set(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        return frozenset()
    return frozenset(found)


def container_quota(root: Path) -> float | None:
    """Processors' worth of time that the process's control groups allow, the least of all levels; None: no limit."""
    quotas = [quota for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _core(cpu: Path, number: int) -> int:
    """The lowest hardware thread of the same core (`thread_siblings_list` is the name before Linux 5.3)."""
    folder = cpu / f"cpu{number}/topology"
    together = cpu_list(_text(folder / "core_cpus_list")) or cpu_list(_text(folder / "thread_siblings_list"))
    return min(together) if number in together else number


def _fast(root: Path, allowed: Collection[int]) -> set[int]:
    """Those of the fast kind. Intel's E cores never are; on others a core with half the capacity of the best is.

    Intel's hybrids have one set of counters for each kind: `cpu_core` and `cpu_atom`, whose `cpus` are their threads.
    The capacity is the kernel's own measure, 1,024 for the best core (Documentation/scheduler/sched-capacity).
    """
    fast = set(allowed) & cpu_list(_text(root / "sys/devices/cpu_core/cpus")) or set(allowed)
    capacity = {number: _number(root / f"sys/devices/system/cpu/cpu{number}/cpu_capacity") for number in fast}
    best = max((found for found in capacity.values() if found is not None), default=0)
    return {number for number, found in capacity.items() if found is None or 2 * found >= best}


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the process's control groups, each with all levels above it, as far as they are mounted here."""
    mounted = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            bases = [mounted, mounted / "unified"]
        elif "cpu" in controllers.split(","):
            bases = [mounted / controllers, mounted / "cpu"]
        else:
            continue
        # In a container without a name space of its own the path is the host's and not here, but its group is the base.
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for base in bases:
            for length in range(len(parts) + 1):
                yield base.joinpath(*parts[:length])


def _quota(folder: Path) -> float | None:
    """`max 100000` or `150000 100000` (version 2), or -1 or microseconds in files of their own (version 1)."""
    new = (_text(folder / "cpu.max") or "").split()
    quota, period = (
        (_whole(new[0]), _whole(new[1]))
        if len(new) == 2
        else (_number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us"))
    )
    return quota / period if quota is not None and period is not None and quota > 0 and period > 0 else None


def _number(path: Path) -> int | None:
    return _whole(_text(path) or "")


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
