"""Which U-Nets a target has attention kernels for, told before anything is built."""

from dataclasses import replace

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.export.targets import TARGETS, find_target
from pocketxl.export.targets.check import check_heads


@pytest.mark.parametrize("target", ["cpu", "onnx-fp16", "openvino", "rtx", "rtx-sm89", "tensorrt", "cuda", "cuda-sm90"])
@pytest.mark.parametrize("kind", ["base", "refiner", "sd15", "sd21"])
def test_the_public_models(target: str, kind: str) -> None:
    unet = read_settings(BUNDLED / kind).unet_architecture
    assert target in TARGETS
    if kind == "sd15" and target.startswith("cuda"):
        with pytest.raises(IncompatibleError, match=f"heads of 40, 80, 160 .*; target {target} has kernels for 64"):
            check_heads(find_target(target), "base", unet)
    else:
        check_heads(find_target(target), "base", unet)


def test_heads_that_no_gpu_target_takes() -> None:
    unet = replace(read_settings(BUNDLED / "sd15").unet_architecture, heads=(1, 1, 1, 1))
    check_heads(find_target("cpu"), "base", unet)
    with pytest.raises(IncompatibleError, match=r"has kernels for 12 to 256: build with --target cpu or onnx-fp16$"):
        check_heads(find_target("rtx"), "base", unet)
