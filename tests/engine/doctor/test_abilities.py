"""What can be built and run, and the fix for each thing that is missing."""

import platform
import sys
from dataclasses import replace
from importlib import metadata

import pytest

from pocketxl.engine.doctor import abilities as module
from pocketxl.engine.doctor.abilities import Ability, abilities
from pocketxl.engine.doctor.machine import Gpu
from pocketxl.engine.doctor.packages import Package
from pocketxl.export.targets import TARGETS

CARD = Gpu(
    name="NVIDIA GeForce RTX 4060", compute_capability="8.9", memory_bytes=8 << 30, free_bytes=7 << 30,
    driver="", cuda="12.9",
)  # fmt: skip


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Extras of which a package is missing; change it."""
    extras: set[str] = set()

    def packages(extra: str) -> tuple[Package, ...]:
        problem = f"{extra}-package is not installed" if extra in extras else None
        return (Package(name=f"{extra}-package", wanted="", version=None, problem=problem),)

    monkeypatch.setattr(module, "packages", packages)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("pocketxl.engine.runners.openvino_session.lacks_vnni", lambda: False)
    return extras


def by_name(gpu: Gpu | str) -> dict[str, Ability]:
    return {f"{ability.target} {ability.deed}": ability for ability in abilities(gpu)}


def test_with_everything_here_everything_can_be_done(missing: set[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = by_name(CARD)
    targets = {name for name in TARGETS if name.partition("-")[0] not in TARGETS or name.partition("-")[0] == name}
    assert set(found) == {f"{target} {deed}" for target in targets for deed in ("run", "build")}
    assert all(ability.possible for ability in found.values())


def test_what_is_missing_is_named_where_it_is_missed_with_its_fix(missing: set[str]) -> None:
    missing.add("export")
    found = by_name(CARD)
    lacking = {name for name, ability in found.items() if not ability.possible}
    assert lacking == {"cpu build", "onnx-fp16 build", "openvino build", "rtx build", "tensorrt build", "cuda build"}
    for name in ("cpu build", "rtx build"):
        (fix,) = found[name].fixes
        assert fix.startswith("export-package is not installed; install it")
        assert fix.endswith("pip install -e '.[export]'")


def test_a_processor_that_openvino_is_not_for(missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketxl.engine.runners.openvino_session.lacks_vnni", lambda: True)
    found = by_name(CARD)
    for deed in ("run", "build"):
        (fix,) = found[f"openvino {deed}"].fixes
        assert "processors with VNNI" in fix
        assert fix.endswith("build with --target cpu")


def test_without_a_card_engines_for_it_can_be_built_and_not_run(missing: set[str]) -> None:
    found = by_name("no card; buy one")
    assert found["rtx build"].possible
    for name in ("rtx run", "tensorrt run", "tensorrt build", "cuda run"):
        assert found[name].fixes == ("no card; buy one",)


def test_a_card_that_the_library_has_no_kernels_for_is_told(missing: set[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    hopper = replace(CARD, compute_capability="9.0")
    (fix,) = by_name(hopper)["rtx run"].fixes
    assert "no kernels for compute capability 9.0; build with --target cuda, or on this machine with" in fix
    assert by_name(hopper)["cuda run"].possible
    assert by_name(hopper)["tensorrt build"].possible
    for name in ("tensorrt run", "tensorrt build"):
        (fix,) = by_name(replace(CARD, compute_capability="6.1"))[name].fixes
        assert fix.endswith("7.5 and later, and this is 6.1; build with --target onnx-fp16 or cpu")


@pytest.mark.parametrize(("target", "package"), [("rtx", "tensorrt-rtx-cu13"), ("tensorrt", "tensorrt-cu13")])
def test_a_package_for_a_later_cuda_than_the_driver_s_is_told(
    missing: set[str], monkeypatch: pytest.MonkeyPatch, target: str, package: str
) -> None:
    def version(name: str) -> str:
        if name == package:
            return "1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    (fix,) = by_name(CARD)[f"{target} run"].fixes
    assert fix.startswith(f"{package} needs an NVIDIA driver that serves CUDA 13, and this one serves 12.9; update")


@pytest.mark.parametrize(("capability", "possible"), [("7.5", False), ("8.7", True), ("10.0", False), ("12.1", True)])
def test_a_card_runs_kernels_of_its_major(missing: set[str], capability: str, possible: bool) -> None:
    card = replace(CARD, compute_capability=capability)
    found = by_name(card)["cuda run"]
    assert found.possible is possible
    assert possible or "build with --target rtx or cpu" in found.fixes[0]


def test_without_the_library_only_the_library_is_asked_for(missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing.add("rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    (fix,) = by_name(CARD)["rtx run"].fixes
    assert fix.endswith("pip install -e '.[rtx]'")


@pytest.mark.parametrize(("system", "kind"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_where_the_library_does_not_exist_nothing_else_is_asked_for(
    missing: set[str], monkeypatch: pytest.MonkeyPatch, system: str, kind: str
) -> None:
    missing |= {"rtx", "export"}
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: kind)
    for deed in ("run", "build"):
        (fix,) = by_name("no card")[f"rtx {deed}"].fixes
        assert fix == "TensorRT for RTX is for Linux and Windows on x86-64; use another machine"
    assert by_name("no card")["cpu run"].possible
