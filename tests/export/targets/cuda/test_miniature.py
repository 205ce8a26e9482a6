"""The trained miniature, base and refiner, as `cuda` engines: who runs what, what was measured, what any size needs."""

from pathlib import Path

import pytest

import pocketxl.export.miniature
from pocketxl.engine.folder.manifest import verify
from pocketxl.engine.program.prepare import prepare
from pocketxl.engine.program.read import PROGRAM_FILE, read_program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.specs import Role
from pocketxl.export.build import build
from pocketxl.kernels.architecture import architecture

WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"
ON_THE_GPU = {"base/unet", "refiner/unet", "vae_decoder"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["int8", "int4-weight"])
def test_an_engine_has_a_runner_for_each_component_and_kernels_for_every_size(recipe: str, tmp_path: Path) -> None:
    made = build(
        WEIGHTS / "base", tmp_path / "engine", refiner=WEIGHTS / "refiner", target="cuda-sm89", recipe=recipe,
        calibration_size=128,
    )  # fmt: skip
    verify(tmp_path / "engine")
    components = made.manifest.components
    assert {name for name, entry in components.items() if entry.runner == "cuda"} == ON_THE_GPU
    assert {entry.runner for name, entry in components.items() if name not in ON_THE_GPU} == {"ort"}
    for name, entry in components.items():
        assert entry.quality_of == ("stand_in" if name in ON_THE_GPU else "engine")
        assert entry.max_relative_error is not None
        assert entry.quality["relative_error"] <= entry.max_relative_error
    arch = architecture(89)
    for name in ON_THE_GPU:
        program = read_program(tmp_path / "engine" / name / PROGRAM_FILE)
        for side, batch, tokens in ((8, 1, 77), (17, 2, 154), (32, 2, 77), (128, 1, 308)):
            at = prepare(program, Sizes(batch=batch, height=side, width=side + 3, tokens=tokens), arch)
            assert {variant.name for variant in at.variants} <= set(program.binaries["89"]), (name, side)
            pixels = 64 * side * (side + 3)
            model = components[name].activation
            if components[name].spec.role is Role.VAE_DECODER or side >= 16:
                assert model.bytes_at(pixels, batch=batch, tokens=tokens) >= 0.9 * at.arena.size, (name, side)
