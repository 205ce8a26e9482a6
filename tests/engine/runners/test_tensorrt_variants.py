"""Of files for several GPU generations, the one for the card at hand is hashed and loaded, and no other."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import ActivationModel, ComponentEntry
from pocketxl.engine.runners.base import Sizes
from pocketxl.engine.runners.device import CudaDevice
from pocketxl.engine.runners.tensorrt import TensorRTRunner

from ...fixtures.cuda_on_host import HostDriver
from ...fixtures.programs import SPEC, Adding
from ...fixtures.tensorrt_on_host import Library
from .test_tensorrt_engine import use

SIZES = Sizes(rows=1, tokens=0, steps=0, pixels=1)
NAMES = {"model.engine": ("sm80", "sm89"), "model.sm75.engine": ("sm75",)}
WEIGHTS = {"model.engine": 40, "model.sm75.engine": 70}


@pytest.fixture
def runner(device: CudaDevice, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRTRunner:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "base/unet"
    folder.mkdir(parents=True)
    for name, size in WEIGHTS.items():
        (folder / name).write_bytes(name.encode().ljust(size))
    entry = ComponentEntry(
        spec=SPEC,
        runner="tensorrt",
        files=tuple(entry_of(tmp_path, f"base/unet/{name}") for name in NAMES),
        weight_bytes=70,
        activation=ActivationModel(terms={"1": 5.0}),
        architectures=NAMES,
        ranges={"batch": (1, 2)},
    )
    return TensorRTRunner(tmp_path, "base/unet", entry, device)


@pytest.mark.parametrize(
    ("capability", "name"), [((8, 9), "model.engine"), ((8, 0), "model.engine"), ((7, 5), "model.sm75.engine")]
)
def test_the_one_for_the_card_is_loaded_though_the_other_is_damaged(
    runner: TensorRTRunner,
    library: Library,
    driver: HostDriver,
    tmp_path: Path,
    capability: tuple[int, int],
    name: str,
) -> None:
    driver.capability = capability
    (other,) = set(NAMES) - {name}
    (tmp_path / "base/unet" / other).write_bytes(b"damaged")
    opened: list[bytes] = []

    def program(content: bytes) -> Adding:
        opened.append(bytes(content).rstrip())
        return Adding()

    library.program = program
    use(runner)
    assert opened == [name.encode()]
    assert runner.footprint(SIZES).weights == WEIGHTS[name]
    runner.release()


def test_a_card_that_none_is_for_is_told_before_anything_is_read(
    runner: TensorRTRunner, library: Library, driver: HostDriver, tmp_path: Path
) -> None:
    driver.capability = (12, 0)
    for name in NAMES:
        (tmp_path / "base/unet" / name).write_bytes(b"damaged")
    with pytest.raises(IncompatibleError, match="this host memory is sm120; build it with --target rtx-sm120"):
        runner.load()
    assert not runner.loaded
    assert library.seen == []
    assert runner.footprint(SIZES).weights == 70, "a plan has no card to refuse"


def test_without_a_card_the_largest_is_planned_for(runner: TensorRTRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> HostDriver:
        raise IncompatibleError("no driver")

    monkeypatch.setattr("pocketxl.engine.runners.device.CudaDriver", none)
    del runner.device.__dict__["driver"]
    assert runner.device.architecture == ""
    assert runner.footprint(SIZES).weights == 70
    assert runner.ranges == {"batch": (1, 2)}


def test_one_file_for_all_is_what_its_size_says(runner: TensorRTRunner) -> None:
    entry = runner._entry
    alone = replace(
        entry, files=entry.files[:1], weight_bytes=40, architectures={"model.engine": NAMES["model.engine"]}
    )
    assert TensorRTRunner(runner._folder, "base/unet", alone, runner.device).footprint(SIZES).weights == 40
