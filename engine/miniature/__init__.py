"""The engine that ships in the wheel: a small SDXL base + refiner, quantized to int8 (docs/miniature.md)."""

from pathlib import Path

FOLDER = Path(__file__).parent / "int8"


def engine_folder(path: str | Path | None) -> Path:
    """`path`, or the folder of the bundled engine for None."""
    return FOLDER if path is None else Path(path)
