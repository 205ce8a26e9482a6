"""How large the scratch of a device is in each phase: as large as the largest call since something was released."""

import pytest

from pocketxl.engine.memory.phase import Phase
from pocketxl.engine.memory.plan import MemoryPlan
from pocketxl.engine.memory.workload import Workload
from pocketxl.engine.runners.base import Footprint

WORKLOAD = Workload(
    width=64, height=64, prompt_tokens=(77,), images=1, guidance=True, evaluations={"base": 1}, decoded=True
)  # fmt: skip
NEEDS = {"text": 30, "unet": 10, "vae": 50}


def scratch(keep: set[str], **kinds: bool) -> list[int]:
    """Phase by phase; by default everything uses the scratch."""
    footprints = {
        name: Footprint(pool="device", weights=0, working=size, scratch=kinds.get(name, True))
        for name, size in NEEDS.items()
    }
    plan = MemoryPlan(
        workload=WORKLOAD, phases=tuple(Phase(name=n, component=n, held_bytes=0) for n in NEEDS),
        keep=frozenset(keep), footprints=footprints, overhead={}, budget=None,
    )  # fmt: skip
    return [plan.phase_bytes(i, "device") for i in range(len(NEEDS))]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (set(), [30, 10, 50]),
        ({"text", "unet", "vae"}, [50, 50, 50]),  # the second call begins with what the first has left
        ({"unet", "vae"}, [50, 10, 50]),  # the text encoder takes the scratch with it
        ({"text", "vae"}, [50, 50, 50]),
        ({"text", "unet"}, [30, 30, 50]),
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing" if isinstance(value, set) else "",
)
def test_it_is_as_large_as_the_largest_call_since_a_release(keep: set[str], expected: list[int]) -> None:
    assert scratch(keep) == expected


def test_what_has_working_memory_of_its_own_has_no_part_in_it() -> None:
    assert scratch({"text", "unet", "vae"}, text=False) == [50 + 30, 50, 50]
    assert scratch({"unet", "vae"}, text=False) == [50 + 30, 50, 50], "its release is not the scratch's"
