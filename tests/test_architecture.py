"""The three floors: what may import what, and how light the runtime is to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("kernels", "engine", "export")  # each may use those before it
NEVER_IN_ENGINE = {"onnx", "onnx_ir", "onnxscript", "diffusers", "transformers", "optimum", "safetensors"}
TORCH_ROOMS = {"engine/models", "engine/runners/torch.py"}


def _imports(path: Path) -> set[str]:
    """Absolute dotted names of everything a module imports, relative ones resolved from the namespace."""
    package = ("pocketxl", *path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *([node.module] if node.module else [])))
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def _sources(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_the_floors_below(floor: str) -> None:
    above = (*FLOORS[FLOORS.index(floor) + 1 :], "tests", "benchmarks")
    for path in _sources(floor):
        for name in _imports(path):
            assert not any(name.startswith(f"pocketxl.{upper}") for upper in above), f"{path} imports {name}"


def test_no_module_imports_a_top_level_engine_export_or_kernels() -> None:
    for floor in FLOORS:
        for path in _sources(floor):
            roots = {name.split(".")[0] for name in _imports(path)}
            assert not roots & {"engine", "export", "kernels"}, path


def test_the_engine_never_imports_the_export_stage_s_libraries() -> None:
    for path in _sources("engine"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert not roots & NEVER_IN_ENGINE, f"{path} imports {roots & NEVER_IN_ENGINE}"
        room = path.relative_to(ROOT).as_posix()
        if not any(room.startswith(allowed) for allowed in TORCH_ROOMS):
            assert "torch" not in roots, path


def test_importing_the_engine_loads_only_numpy_and_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import pocketxl.engine; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {m for m in out if m not in sys.stdlib_module_names and not m.startswith("_")} - {"numpy", "pocketxl"}
    assert not foreign, foreign


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {
        "pocketxl." + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for floor in FLOORS
        for path in _sources(floor)
    }
    assert present == listed
