"""Checkpoints and engines that several tests only read: made once a session, for all its processes where that pays."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

# Before anything imports Triton, which reads it once: kernels run in its interpreter. For those on a GPU set it to 0.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Before anything imports torch: networks this small run slower on two threads where the cores are shared, and the bytes
# of a build would depend on which tests ran before it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from .fixtures.checkpoints import tiny_checkpoint
from .fixtures.shared import made_once, session_root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one that begins last leaves all other processes without work."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Builds remember digests here, not in the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETXL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where builds keep their unquantized runs for one another, in all processes of a session."""
    return session_root(tmp_path_factory) / "references"


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A diffusers folder of each kind, by kind."""
    return {
        kind: made_once(tmp_path_factory, kind, partial(tiny_checkpoint, kind=kind)) / f"tiny-{kind}"
        for kind in ("base", "refiner")
    }


@pytest.fixture(scope="session")
def tiny_engine(tiny_folders: dict[str, Path], references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine folder of both, recipe fp32."""
    return _build(tiny_folders, references, tmp_path_factory, "fp32")


@pytest.fixture(scope="session")
def tiny_int8_engine(tiny_folders: dict[str, Path], references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine folder of both, recipe int8."""
    return _build(tiny_folders, references, tmp_path_factory, "int8")


def _build(folders: dict[str, Path], references: Path, factory: pytest.TempPathFactory, recipe: str) -> Path:
    from pocketxl.export.build import build
    from pocketxl.export.quantize.recipes import RECIPES

    # Random weights suffer more from 8 bits than trained ones; whether a recipe is good enough is not asked here.
    free = replace(
        RECIPES[recipe], min_psnr_db=0.0, max_relative_error=dict.fromkeys(RECIPES[recipe].max_relative_error, 1.0)
    )

    def make(root: Path) -> None:
        with patch.dict(RECIPES, {recipe: free} if recipe != "fp32" else {}):
            build(folders["base"], root / "engine", refiner=folders["refiner"], recipe=recipe, reference=references)

    return made_once(factory, recipe, make) / "engine"


@pytest.fixture(scope="session")
def tiny_controlnets(
    tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """Two ControlNets for the tiny base, recipe fp32: name → diffusers folder, built folder."""
    from pocketxl.export.companions.controlnet import build_controlnet

    from .fixtures.controlnets import write_controlnet

    root, built = tmp_path_factory.mktemp("controlnets"), tmp_path_factory.mktemp("built")
    made = {}
    for name in ("canny", "depth"):
        source = write_controlnet(root, name)
        build_controlnet(source, built / name, base=tiny_folders["base"], recipe="fp32")
        made[name] = (source, built / name)
    return made


@pytest.fixture(scope="session")
def tiny_union_folder(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet-Union for the tiny base, recipe fp32; its diffusers folder lies beside it, called `union`."""
    from pocketxl.export.companions.controlnet import build_controlnet

    from .fixtures.controlnets import write_union

    root = tmp_path_factory.mktemp("unions")
    return build_controlnet(write_union(root), root / "built", base=tiny_folders["base"], recipe="fp32").folder


@pytest.fixture(scope="session")
def tiny_t2i_adapters(
    tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """T2I adapters for the tiny base, one of them of grey pictures, recipe fp32: name → diffusers and built folder."""
    from pocketxl.export.companions.t2i_adapter import build_t2i_adapter

    from .fixtures.t2i_adapters import write_adapter

    root, built = tmp_path_factory.mktemp("adapters"), tmp_path_factory.mktemp("built")
    made = {}
    for name, channels in (("sketch", 3), ("depth", 3), ("grey", 1)):
        source = write_adapter(root, name, in_channels=channels)
        build_t2i_adapter(source, built / name, base=tiny_folders["base"], recipe="fp32")
        made[name] = (source, built / name)
    return made


@pytest.fixture(scope="session")
def tiny_upscaler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small ESRGAN of factor 4: spandrel's module, and the folder that is built of its file."""
    from pocketxl.export.companions.upscaler import build_upscaler

    from .fixtures.upscalers import esrgan, write_upscaler

    root, module = tmp_path_factory.mktemp("upscaler"), esrgan(num_blocks=1)
    build_upscaler(write_upscaler(root / "file.safetensors", module.state_dict()), root / "4x-small")
    return module, root / "4x-small"
