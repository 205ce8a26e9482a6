"""The small network on a real GPU: compiled kernels, the true driver, captured graphs, held to the kernels' references.

Run with `TRITON_INTERPRET=0 pytest -m gpu tests/engine/runners/test_cuda_gpu.py`; it needs Triton to compile the
kernels, but neither a C compiler nor torch on the GPU.
"""

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.program.program import BinarySpec
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.kernels.architecture import architecture

from ...fixtures.small_programs import inputs_at, small_program, truth, variants, write_component
from ...tolerances import SMALL_PROGRAM_RELATIVE

SIZES = (
    Sizes(batch=2, height=32, width=32, tokens=77),
    Sizes(batch=1, height=32, width=32, tokens=77),
    Sizes(batch=2, height=23, width=37, tokens=154),
)
PROGRAM, WEIGHTS = small_program()


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not has_driver() or os.environ.get("TRITON_INTERPRET") == "1",
        reason="needs an NVIDIA GPU and TRITON_INTERPRET=0",
    ),
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CudaRunner]:
    """A component whose kernels were compiled for the GPU at hand."""
    from pocketxl.kernels.compile import compile_variant, faults

    device = CudaDevice()
    major, minor = device.driver.compute_capability()
    arch = architecture(10 * major + minor)
    specs, content = {}, b""
    for variant in variants(PROGRAM, SIZES, arch):
        binary = compile_variant(variant, arch)
        assert not faults(binary), (variant.name, faults(binary))
        specs[variant.name] = BinarySpec(
            offset=len(content),
            size=len(binary.cubin),
            entry=binary.entry,
            shared=binary.shared,
            threads=32 * variant.num_warps,
        )
        content += binary.cubin
    folder = tmp_path_factory.mktemp("engine")
    entry = write_component(folder, "base/unet", PROGRAM, WEIGHTS, {str(arch.sm): specs}, content)
    made = CudaRunner(folder, "base/unet", entry, device)
    yield made
    made.release()
    device.close()


def run(runner: CudaRunner, inputs: dict[str, np.ndarray], held: Any = None) -> np.ndarray:
    return np.asarray(runner(inputs, held)["prediction"])


def assert_true(found: np.ndarray, inputs: dict[str, np.ndarray], sizes: Sizes) -> None:
    wanted = truth(PROGRAM, WEIGHTS, inputs, sizes)
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    relative = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert relative <= SMALL_PROGRAM_RELATIVE, relative


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_computes_what_the_references_do(runner: CudaRunner, sizes: Sizes) -> None:
    inputs = inputs_at(sizes)
    assert_true(run(runner, inputs), inputs, sizes)


def test_replayed_graphs_see_new_inputs_and_shapes_may_alternate(runner: CudaRunner) -> None:
    first = {sizes: run(runner, inputs_at(sizes)) for sizes in SIZES}
    for seed in (1, 0, 1):
        for sizes in SIZES:
            inputs = inputs_at(sizes, seed)
            found = run(runner, inputs)
            if seed:
                assert_true(found, inputs, sizes)
            else:
                np.testing.assert_array_equal(found, first[sizes])


def test_what_is_held_is_used_as_if_it_were_given(runner: CudaRunner) -> None:
    sizes = SIZES[0]
    for seed in (2, 3):
        inputs = inputs_at(sizes, seed)
        whole = run(runner, inputs)
        held = runner.hold({name: inputs.pop(name) for name in list(inputs) if name.startswith("key_values")})
        for _ in range(3):
            np.testing.assert_array_equal(run(runner, inputs, held), whole)
        held.release()


def test_it_comes_and_goes(runner: CudaRunner) -> None:
    sizes = SIZES[1]
    before = run(runner, inputs_at(sizes))
    taken = runner.device.in_use
    assert taken is not None
    for _ in range(3):
        runner.release()
        assert not runner.loaded
        np.testing.assert_array_equal(run(runner, inputs_at(sizes)), before)
    after = runner.device.in_use
    assert after is not None
    assert after <= taken + (8 << 20)  # the driver gives memory in pieces of 2 MiB, to others' processes too
