"""What extras ask for is read from the package's own metadata, and told against what is here."""

import sys
from importlib import metadata

import pytest

from pocketxl.engine.doctor.packages import IMPORTED, fits, packages

REQUIRES = [
    "numpy>=1.26",
    'onnxruntime>=1.24; extra == "cpu"',
    'pillow>=10.3; extra == "cpu"',
    'pocketxl[cpu]; extra == "export"',
    'torch==2.13.0; extra == "export"',
    'pocketxl[cpu,export]; extra == "all"',
    "triton==3.7.1; sys_platform == 'linux' and extra == 'cuda'",
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed; change it."""
    here = {"numpy": "2.0.1", "onnxruntime": "1.24", "pillow": "11.0", "torch": "2.13.0+cpu", "triton": "3.7.1"}

    def version(name: str) -> str:
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "version", version)
    return here


def names(extra: str) -> list[str]:
    return [package.name for package in packages(extra)]


def test_extras_contain_extras(installed: dict[str, str]) -> None:
    assert names("cpu") == ["numpy", "onnxruntime", "pillow"]
    assert names("export") == ["numpy", "onnxruntime", "pillow", "torch"]
    assert names("all") == names("export")
    assert names("cuda") == ["numpy", "triton"]
    assert all(package.problem is None for package in packages("all"))


def test_a_package_that_takes_another_one_s_place_will_do(installed: dict[str, str]) -> None:
    del installed["onnxruntime"]
    installed["onnxruntime-gpu"] = "1.31"
    found = next(package for package in packages("cpu") if package.name.startswith("onnxruntime"))
    assert (found.name, found.version, found.problem) == ("onnxruntime-gpu", "1.31", None)
    installed["onnxruntime-gpu"] = "1.0"
    assert "onnxruntime-gpu is 1.0 and has to be" in str(
        next(package.problem for package in packages("cpu") if package.name.startswith("onnxruntime"))
    )


def test_what_is_missing_too_old_or_another_version_is_told(installed: dict[str, str]) -> None:
    del installed["onnxruntime"]
    installed |= {"pillow": "9.5", "torch": "2.14.0"}
    problems = {package.name: package.problem for package in packages("export")}
    assert problems == {
        "numpy": None,
        "onnxruntime": "onnxruntime is not installed",
        "pillow": "pillow is 9.5 and has to be >=10.3",
        "torch": "torch is 2.14.0 and has to be ==2.13.0",
    }


def test_what_is_installed_and_cannot_be_imported_is_told(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (problem,) = [package.problem for package in packages("cpu") if package.problem]
    assert problem.startswith("onnxruntime 1.24 is installed but cannot be used (")


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("1.24", "", True), ("1.24", ">=1.24", True), ("1.24.1", ">=1.24", True), ("1.9", ">=1.24", False),
        ("2", ">=2.0.0", True), ("2.13.0+cpu", "==2.13.0", True), ("2.13.1", "==2.13.0", False),
        ("5.0.0rc1", ">=5.0", True), ("1.7.1.116", ">=1.7.1", True), ("1.0", ">=1.1,<2", False), ("1.5", "!=1.4", True),
    ],
)  # fmt: skip
def test_versions(version: str, wanted: str, met: bool) -> None:
    assert fits(version, wanted) is met


def test_our_own_metadata_is_understood() -> None:
    run = ("cpu", "openvino", "rtx", "tensorrt")
    for extra in ("export", *run):
        assert packages(extra)
    assert set(IMPORTED) <= {package.name for extra in run for package in packages(extra)}
