"""The packages that PocketXL's extras ask for, and which of them are here: read from its own metadata."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata

OURS = "pocketxl"
# Those that running an engine imports. That they are installed is not enough: a library beside them may be missing.
IMPORTED = {
    "onnxruntime": "onnxruntime",
    "tokenizers": "tokenizers",
    "pillow": "PIL",
    "openvino": "openvino",
    "tensorrt-rtx-cu12": "tensorrt_rtx",
    "tensorrt-cu12": "tensorrt",
}


# Packages that take another one's place, and bring the same module.
INSTEAD = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml"),
    "tensorrt-rtx-cu12": ("tensorrt-rtx-cu13",),
    "tensorrt-cu12": ("tensorrt-cu13",),
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """One distribution that an extra asks for."""

    name: str
    wanted: str
    """The versions that will do: `>=1.24`; empty for any."""
    version: str | None
    """What is installed; None if it is not here."""
    problem: str | None
    """What is wrong with it; None if nothing is."""


def packages(extra: str) -> tuple[Package, ...]:
    """What the extra asks for (`cpu`, `export`, `rtx`), other extras in it included."""
    found: dict[str, Package] = {}
    for name, wanted in _wanted(extra):
        found.setdefault(name, _package(name, wanted))
    return tuple(found.values())


def _wanted(extra: str) -> Iterator[tuple[str, str]]:
    for line in metadata.requires(OURS) or []:
        requirement, _, marker = line.partition(";")
        if marker and not re.search(rf"""extra == ["']{re.escape(extra)}["']""", marker):
            continue
        parts = re.fullmatch(r"\s*([\w.-]+)(?:\[([\w, -]+)\])?\s*\(?([^)]*?)\)?\s*", requirement)
        assert parts is not None, line
        if parts[1] == OURS:
            for inner in parts[2].split(","):
                yield from _wanted(inner.strip())
        else:
            yield parts[1], parts[3]


def _package(name: str, wanted: str) -> Package:
    here = next((one for one in (name, *INSTEAD.get(name, ())) if _version(one) is not None), name)
    version = _version(here)
    if version is None:
        return Package(name=name, wanted=wanted, version=None, problem=f"{name} is not installed")
    problem = None if fits(version, wanted) else f"{here} is {version} and has to be {wanted}"
    if problem is None and name in IMPORTED:
        try:
            import_module(IMPORTED[name])
        except (ImportError, OSError) as error:
            problem = f"{here} {version} is installed but cannot be used ({' '.join(str(error).split())[:200]})"
    return Package(name=here, wanted=wanted, version=version, problem=problem)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits(version: str, wanted: str) -> bool:
    """Whether a version is within `wanted`: `>=` and `==` are what our metadata says, other words count as met."""
    for clause in filter(None, (part.strip() for part in wanted.split(","))):
        operator, limit = re.match(r"([<>=!~]*)(.*)", clause).groups()  # type: ignore[union-attr]  # it always matches
        least, here = _numbers(limit), _numbers(version)
        here += (0,) * (len(least) - len(here))
        if (operator == ">=" and here < least) or (operator == "==" and here[: len(least)] != least):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` → (2, 13, 0)."""
    return tuple(int(part) for part in re.match(r"\s*\d*(?:\.\d+)*", version)[0].split(".") if part.strip())  # type: ignore[index]
