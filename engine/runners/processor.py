"""What this machine's processor is called."""

import platform
from pathlib import Path

# Integer kernels, and so an int8 engine's rounding, differ by these.
TELLING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def processor_name() -> str:
    """Its model and the instructions that integer kernels differ by, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()} ({platform.machine()})"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    found = [name for name in TELLING if name in flags]
    return f"{facts.get('model name') or platform.machine()} ({', '.join(found) or platform.machine()})"
