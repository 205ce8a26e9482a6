"""The Hopper convolution, compiled ahead of time: the interpreter cannot run it, so the binary is what is looked at."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.configs import trying
from pocketxl.kernels.conv.plan import plan_conv_w8a8
from pocketxl.kernels.errors import KernelError

SM90 = architecture(90)
ROW = {
    "OVERLAP": 1, "BLOCK_M": 128, "BLOCK_N": 128, "SECOND_N": 32, "BLOCK_K": 128, "GROUP_M": 8, "PROGRAMS": 132,
    "num_warps": 8, "num_stages": 5,
}  # fmt: skip
# In a process of its own: here kernels may be defined for the interpreter.
CHILD = """
import json, sys
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.compile import compile_variant, faults
from pocketxl.kernels.configs import trying
from pocketxl.kernels.conv.plan import plan_conv_w8a8
row, shape = json.loads(sys.argv[1])
with trying("conv_w8a8", row):
    plan = plan_conv_w8a8(arch=architecture(90), **shape)
binary = compile_variant(plan.variants[0], architecture(90))
lines = [line.split() for line in binary.ptx.splitlines()]
print(json.dumps({
    "faults": faults(binary),
    "waits": [line[-1] for line in lines if line and line[0].startswith("wgmma.wait_group")],
    "sizes": [line[-1] for line in lines if line and line[0].startswith("cp.async.cg.shared.global")],
    "narrow": sum(bool(line) and line[0].startswith("cp.async.ca") for line in lines),
}))
"""


def picture(c: int = 1280, n: int = 1280, **more: Any) -> dict[str, Any]:
    return {"b": 2, "h": 32, "w": 32, "c": c, "n": n, **more}


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (ROW, picture(residual=True)),
        (ROW | {"BLOCK_K": 64, "num_stages": 6}, picture(c=320, n=320, time=True, stride=2)),
        (ROW, picture(upsample_to=(64, 64))),
        (ROW, picture() | {"b": 1, "h": 8, "w": 8}),  # few rows: sums are shared out
        (ROW, picture(c2=640, kernel=1)),
    ],
)
def test_a_step_is_in_flight_nothing_spills_and_taps_outside_are_copies_of_nothing(
    row: dict[str, int], shape: dict[str, Any]
) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([row, shape])], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["faults"] == []
    # The loop leaves the step's own groups in flight, one for each part of the tile; all are waited for behind it.
    assert said["waits"] == ["2;", "0;"] * (2 if "c2" in shape else 1)
    # Operands are copied 16 bytes a thread; of a picture, how many bytes is known only when a tap is: 16 or none.
    assert said["narrow"] == 0
    assert "0x10;" in said["sizes"]
    assert any(size.startswith("%r") for size in said["sizes"])


def test_a_tile_of_two_parts_covers_a_level_in_less_than_a_round() -> None:
    with trying("conv_w8a8", ROW):
        launch = plan_conv_w8a8(arch=SM90, **picture()).launches[0]
    assert launch.kernel == "hopper_conv.conv_w8a8_async_kernel"
    assert launch.grid == (16 * 8, 1, 1)


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (ROW, picture(c=320)),  # steps of 128
        (ROW, picture(c=256, kernel=1)),  # two steps for three stages
        (ROW, picture(c2=320, kernel=1)),
        (ROW, picture(dtype="float8_e4m3fn")),
        (ROW | {"num_stages": 7}, picture()),  # more than a share of a sum fills
    ],
)
def test_what_a_tile_does_not_take_is_refused(row: dict[str, int], shape: dict[str, Any]) -> None:
    with trying("conv_w8a8", row), pytest.raises(KernelError, match=f"does not fit c = {shape['c']}"):
        plan_conv_w8a8(arch=SM90, **shape)
