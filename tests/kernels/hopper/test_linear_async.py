"""The Hopper linears, compiled ahead of time: the interpreter cannot run them, so the binary is what is looked at."""

import json
import os
import subprocess
import sys

import pytest

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.configs import trying
from pocketxl.kernels.errors import KernelError
from pocketxl.kernels.linear.plan import plan_geglu_linear_w8a8, plan_linear_w8a8

SM90 = architecture(90)
ROW = {"OVERLAP": 1, "BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "GROUP_M": 8, "num_warps": 8, "num_stages": 4}
WIDE = {**ROW, "SECOND_N": 32}
# In a process of its own: here kernels may be defined for the interpreter.
CHILD = """
import json, sys
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.compile import compile_variant, faults
from pocketxl.kernels.configs import trying
from pocketxl.kernels.linear.plan import plan_geglu_linear_w8a8, plan_linear_w8a8
op, row, residual, eight = json.loads(sys.argv[1])
with trying(op, row):
    if op == "linear_w8a8":
        plan = plan_linear_w8a8(m=2048, n=1280, k=1280, arch=architecture(90), residual=residual, static=eight)
    else:
        plan = plan_geglu_linear_w8a8(m=2048, n=5120, k=1280, arch=architecture(90), quantized=eight)
binary = compile_variant(plan.variants[0], architecture(90))
waits = [line.split()[-1] for line in binary.ptx.splitlines() if "wgmma.wait_group" in line]
print(json.dumps({"faults": faults(binary), "waits": waits, "copies": binary.ptx.count("cp.async.cg.shared.global")}))
"""


@pytest.mark.parametrize(
    ("op", "row", "residual", "in_flight"),
    [("linear_w8a8", ROW, False, 1), ("linear_w8a8", WIDE, True, 2), ("geglu_linear_w8a8", ROW, False, 2)],
)
@pytest.mark.parametrize("eight", [False, True])
def test_a_step_is_in_flight_and_nothing_spills(
    op: str, row: dict[str, int], residual: bool, in_flight: int, eight: bool
) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([op, row, residual, eight])], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["faults"] == []
    # The loop leaves the step's own groups in flight, one for each part of the tile; all are waited for behind it.
    assert said["waits"] == [f"{in_flight};", "0;"]
    assert said["copies"] > 0, "operands are copied 16 bytes a thread, past the registers"


def test_a_tile_of_two_parts_covers_1280_columns_in_eight() -> None:
    with trying("linear_w8a8", WIDE):
        launch = plan_linear_w8a8(m=2048, n=1280, k=1280, arch=SM90).launches[0]
    assert launch.grid == (16 * 8, 1, 1)
    assert (launch.constants["BLOCK_N"], launch.constants["SECOND_N"]) == (128, 32)


@pytest.mark.parametrize("k", [1344, 128])
def test_a_row_that_does_not_fit_k_is_refused(k: int) -> None:
    with trying("geglu_linear_w8a8", ROW | {"num_stages": 5}), pytest.raises(KernelError, match=f"k = {k}"):
        plan_geglu_linear_w8a8(m=64, n=64, k=k, arch=SM90)
