"""One system's pictures in a process of its own: `SYSTEM PLACES CASES OUT`, all JSON but the folder OUT.

Prints one line of JSON for each case, and leaves its pictures in OUT.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .cases import CASES, TINY
from .stages import Maker, measure


def main() -> int:
    """See above."""
    system, places, names, out = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
    before = _in_use()
    maker = _maker(system, places)
    for case in (*CASES, *TINY):
        if case.name in names:
            found, pictures = measure(maker, case, before)
            np.save(out / f"{case.name}.npy", pictures)
            sys.stdout.write(json.dumps({"case": case.name, "found": found}) + "\n")
            sys.stdout.flush()
    return 0


def _maker(system: str, places: Mapping[str, str | None]) -> Maker:
    if (engine := places.get("engine")) is not None:
        from .ours import Ours

        return Ours(Path(engine))
    from .theirs import Theirs

    base, refiner = places["base"], places["refiner"]
    assert base is not None, places
    return Theirs(Path(base), None if refiner is None else Path(refiner), compiled=system.endswith("-compiled"))


def _in_use() -> int | None:
    """Bytes of the GPU's memory that others have; None without a GPU."""
    from pocketxl.engine.runners.device import CudaDevice

    device = CudaDevice()
    used = device.in_use
    device.close()
    return used


if __name__ == "__main__":
    sys.exit(main())
