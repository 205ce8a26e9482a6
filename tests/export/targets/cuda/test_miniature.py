"""The trained miniature, base and refiner, as `cuda` engines: who runs what, what was measured, what any size needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pocketxl.export.miniature
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.engine.program.prepare import prepare
from pocketxl.engine.program.read import KERNELS_FILE, PROGRAM_FILE, read_program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.program.slots import RANKS, SLOTS_FILE, opened, read_slots
from pocketxl.engine.specs import Role
from pocketxl.export.targets.cuda.target import SLOTTED
from pocketxl.kernels.architecture import architecture

WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"
STEPS = 30
ON_THE_GPU = {f"{kind}/{part}" for kind in ("base", "refiner") for part in ("conditioner", "unet")}
ON_THE_GPU |= {"text_encoder", "text_encoder_2", "vae_decoder"}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "refiner"), [("int8", True), ("int4", False)])
def test_an_engine_has_a_runner_for_each_component_and_kernels_for_every_size(
    recipe: str, refiner: bool, references: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "engine"
    command = [sys.executable, "-m", "pocketxl.engine", "build", str(WEIGHTS / "base"), "-o", str(engine), "--quiet"]
    command += ["--target", "cuda-sm89", "--recipe", recipe, "--reference", str(references)]
    command += ["--refiner", str(WEIGHTS / "refiner")] if refiner else []
    # Kernels are compiled there, which a process cannot in which Triton interprets them.
    alone = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run(command, check=True, env=alone)
    verify(engine)
    components = read_manifest(engine).components
    on_the_gpu = ON_THE_GPU & components.keys()
    assert ("refiner/unet" in components) == refiner
    assert {name for name, entry in components.items() if entry.runner == "cuda"} == on_the_gpu
    assert {entry.runner for name, entry in components.items() if name not in on_the_gpu} == {"ort"}
    for name, entry in components.items():
        assert entry.quality_of == ("stand_in" if name in on_the_gpu else "engine")
        assert entry.max_relative_error is not None
        assert entry.quality["relative_error"] <= entry.max_relative_error
    arch = architecture(89)
    for name in on_the_gpu:
        kernels = (engine / name / KERNELS_FILE).read_bytes()
        assert b"kernel.py" not in kernels, "nobody's folders are in what is shipped"
        program = read_program(engine / name / PROGRAM_FILE)
        opening = components[name].openings
        assert (opening is not None) == (components[name].spec.role in SLOTTED), "where LoRAs have a place"
        for side, batch, tokens in ((8, 1, 77), (17, 2, 154), (32, 2, 77), (128, 1, 308)):
            tokens = 77 if components[name].spec.role is Role.TEXT_ENCODER else tokens
            at = prepare(program, Sizes(batch=batch, height=side, width=side + 3, tokens=tokens, steps=STEPS), arch)
            assert {variant.name for variant in at.variants} <= set(program.binaries["89"]), (name, side)
            if opening is not None:
                layers = opening.shapes(opening.graphs[0].groups)
                slots = read_slots(engine / name / SLOTS_FILE, program)
                for rank in RANKS:
                    sizes = Sizes(batch=batch, height=side, width=side + 3, tokens=tokens, steps=STEPS, rank=rank)
                    with_pairs = prepare(opened(program, slots, layers), sizes, arch)
                    asked = {variant.name for variant in with_pairs.variants}
                    assert asked <= set(program.binaries["89"]), (name, side, rank)
            pixels = 64 * side * (side + 3)
            model = components[name].activation
            if components[name].spec.role is Role.VAE_DECODER or side >= 16:
                # The model is fitted to sampled sizes, above each; between them and at longer prompts it may be under.
                assert model.bytes_at(pixels, batch=batch, tokens=tokens, steps=STEPS) >= 0.9 * at.arena.size, (
                    name,
                    side,
                )
