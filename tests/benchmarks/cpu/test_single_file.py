"""The one file that stable-diffusion.cpp reads is SDXL's original layout, as the tests' own writer lays it out."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.cpu.single_file import write_single_file

from ...fixtures import original_layout

STRAYS = ("denoiser.sigmas", "conditioner.embedders.1.model.logit_scale")


def test_the_original_layout(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    write_single_file(tiny_folders["base"], tmp_path / "ours.safetensors")
    ours = load_file(tmp_path / "ours.safetensors")
    theirs = load_file(original_layout.write_single_file(tiny_folders["base"], tmp_path / "theirs.safetensors"))
    assert set(theirs) - set(ours) == {*STRAYS, f"{original_layout.CLIP}text_model.embeddings.position_ids"}
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)
