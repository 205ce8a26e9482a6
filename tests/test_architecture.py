"""The three floors: what may import what, and how light the runtime is to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("kernels", "engine", "export")  # each may use those before it
NEVER_IN_ENGINE = {"onnx", "onnx_ir", "onnxscript", "diffusers", "transformers", "optimum", "safetensors"}
TORCH_ROOMS = {"engine/models"}
MOST_LINES = 300


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


def _room(name: str) -> str:
    """What a module belongs to: its folder; a module that lies on a floor itself is a room of its own."""
    parts = name.split(".")[1:]
    while parts and not (ROOT.joinpath(*parts).is_dir() or ROOT.joinpath(*parts).with_suffix(".py").is_file()):
        parts.pop()  # a name inside a module
    path = ROOT.joinpath(*parts)
    folder = path if path.is_dir() else path.parent
    return (path if folder.parent == ROOT and not path.is_dir() else folder).relative_to(ROOT).as_posix()


def _arrows(floor: str) -> dict[str, set[str]]:
    """Room → the rooms that its modules import, lazily and for types too."""
    arrows: dict[str, set[str]] = {}
    for path in _sources(floor):
        here = _room("pocketxl." + path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        there = {_room(name) for name in _imports(path) if name.startswith(f"pocketxl.{floor}.")}
        arrows.setdefault(here, set()).update(there - {here, floor})
    return arrows


@pytest.mark.parametrize("floor", FLOORS)
def test_no_circles_between_folders(floor: str) -> None:
    arrows = _arrows(floor)
    while arrows:
        ground = {room for room, below in arrows.items() if not below & set(arrows)}
        assert ground, f"a circle among { ({room: sorted(below & set(arrows)) for room, below in arrows.items()}) }"
        arrows = {room: below for room, below in arrows.items() if room not in ground}


def test_no_file_is_long() -> None:
    for floor in (*FLOORS, "benchmarks"):
        for path in _sources(floor):
            lines = len(path.read_text().splitlines())
            assert lines <= MOST_LINES, f"{path} has {lines} lines: does it hold one concept?"


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


def test_the_command_line_works_without_the_packages_of_a_build() -> None:
    """The parser of every command is made, `build` among them, for the light install too."""
    heavy = ("torch", "onnx", "onnx_ir", "onnxscript", "diffusers", "transformers", "safetensors", "tensorrt_rtx")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); sys.argv = ['pocketxl', 'inspect', '--help']; "
        "from pocketxl.engine.commands.main import main; sys.exit(main())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
