"""What every benchmark prints: one JSON object as the last line, with the environment and one record per figure."""

import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "onnxruntime",
    "onnx",
    "optimum-quanto",
    "sdnq",
    "torchao",
    "openvino",
    "nncf",
    "cyllama",
    "triton",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "numpy",
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One figure: what was run (`case`), by whom (`system`), and the value with its unit."""

    case: str
    system: str
    metric: str
    value: float
    unit: str


def environment() -> dict[str, object]:
    """Processor, cores, memory, date and library versions."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": sorted(f for f in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {f}" in flags),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def peak_rss_bytes() -> int:
    """The largest resident set of this process so far.

    From the kernel's own mark where there is one: `ru_maxrss` also remembers the process that started this one.
    """
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def finish(
    benchmark: str, records: Sequence[Record], command: str = "", extra: Mapping[str, object] | None = None
) -> None:
    """Print the JSON object that ends a benchmark; `extra` goes into its environment."""
    sys.stdout.write(json.dumps(document(benchmark, records, command, extra)) + "\n")


def document(
    benchmark: str, records: Sequence[Record], command: str = "", extra: Mapping[str, object] | None = None
) -> dict[str, object]:
    """What `finish` prints."""
    return {
        "benchmark": benchmark,
        "command": command or "python -m " + " ".join([f"benchmarks.{benchmark}", *sys.argv[1:]]),
        "environment": {**environment(), **(extra or {})},
        "records": [asdict(record) for record in records],
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
