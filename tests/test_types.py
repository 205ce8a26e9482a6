"""A user's own strictly typed script sees the types of all three floors."""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from pathlib import Path

import pocketxl.kernels
from pocketxl.engine import Pipeline, PocketXLError
from pocketxl.engine.progress import JsonLines
from pocketxl.export.build import BuildReport, build
from pocketxl.kernels.errors import KernelError


def make(source: Path, destination: Path) -> float:
    report: BuildReport = build(source, destination, recipe="int8", keep=["base/unet:conv_in"], threads=2, force=True)
    with Pipeline.load(report.folder) as pipe:
        pipe("a cat")
    return report.manifest.quality["psnr_db"]
"""
MISTAKE = """
build("a", "b")
"""


@pytest.mark.parametrize("floor", ["kernels", "engine", "export"])
def test_every_floor_says_that_it_is_typed_and_the_wheel_carries_it(floor: str) -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data[f"pocketxl.{floor}"]
    assert (ROOT / floor / "py.typed").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_strict_script_passes_and_its_mistakes_are_found(tmp_path: Path) -> None:
    """As installed: checkers ignore the types of packages in `site-packages` that do not say that they are typed."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "pocketxl").symlink_to(ROOT)
    found = []
    for name, text in (("good.py", SCRIPT), ("bad.py", SCRIPT + MISTAKE)):
        (tmp_path / name).write_text(text)
        options = ["--strict", "--config-file", "", "--cache-dir", str(tmp_path / "mypy")]
        command = [
            sys.executable,
            "-m",
            "mypy",
            *options,
            "--python-executable",
            str(tmp_path / "venv/bin/python"),
            name,
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        found.append(ended.stdout)
    assert found[0].startswith("Success"), found[0]
    assert 'error: Argument 2 to "build" has incompatible type "str"; expected "Path"' in found[1]
