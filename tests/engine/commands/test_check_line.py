"""What `pocketxl check` says of a component."""

from pocketxl.engine.check import ComponentCheck
from pocketxl.engine.commands.check import line

FOUND = ComponentCheck(
    name="base/unet", device="a card", relative_error=0.005, recorded=None, limit=0.06, seconds=0.0022,
    load_seconds=0.05, peak_bytes=None, device_bytes=22 << 20,
)  # fmt: skip


def test_a_component_on_another_device_than_the_first_says_so() -> None:
    assert line(FOUND, "a processor").endswith("22 MiB  on a card, and of its memory")
    assert line(FOUND, "a card").endswith("22 MiB")
