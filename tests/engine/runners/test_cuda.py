"""A small network through the whole runtime, on its kernels' own sources: what is computed, and where it lies."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.kernels.architecture import architecture

from ...fixtures.cuda_programs import binaries_of, fake_device, poison_the_dead
from ...fixtures.small_programs import inputs_at, small_program, truth, variants, write_component

ARCH = architecture(89)
ONE = Sizes(batch=1, height=4, width=6, tokens=77)
TWO = Sizes(batch=2, height=5, width=3, tokens=77)


def make(folder: Path, device: CudaDevice, *, sm: str = "89") -> CudaRunner:
    program, weights = small_program()
    specs, content = binaries_of(variants(program, [ONE, TWO], ARCH))
    entry = write_component(folder, "base/unet", program, weights, {sm: specs}, content)
    return CudaRunner(folder, "base/unet", entry, device)


def test_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_the_dead(monkeypatch)
    device = fake_device()
    runner = make(tmp_path, device)
    program, weights = small_program()
    for sizes in (ONE, TWO):
        inputs = inputs_at(sizes)
        out = runner(inputs)["prediction"]
        want = truth(program, weights, inputs, sizes)
        print(np.abs(out - want).max(), np.abs(want).max(), np.sqrt(np.mean((out - want) ** 2) / np.mean(want**2)))
    runner.release()
    device.close()
