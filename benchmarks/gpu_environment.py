"""What a benchmark on a GPU says of it beside `report.environment`."""

import subprocess
from typing import Any


def gpu_environment() -> dict[str, object]:
    """The GPU, its driver, and the CUDA that torch was built for."""
    import torch

    properties: Any = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_sms": properties.multi_processor_count,
        "gpu_l2_bytes": properties.L2_cache_size,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    except OSError:  # a container may have the driver without its tools
        return "unknown"
    return lines[0] if lines else "unknown"
