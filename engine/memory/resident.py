"""The process's resident set, as the kernel counts it; only Linux tells."""

from pathlib import Path

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")


def resident_peak() -> int | None:
    """Its high-water mark in bytes since the process began, or since it was forgotten; None where it is not told."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def forget_resident_peak() -> bool:
    """Let the mark begin anew at what is resident now; False where that cannot be."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return False
    return True
