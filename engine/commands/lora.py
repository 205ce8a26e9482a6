"""`--lora FILE:0.8`: a file and how much it counts."""

from collections.abc import Sequence

from ..errors import RequestError


def loras_of(texts: Sequence[str]) -> dict[str, float]:
    """File → weight, 1 where a text ends in none. A colon inside a path is the path's. Raises `RequestError`."""
    found: dict[str, float] = {}
    for text in texts:
        file, weight = _parts(text)
        if file in found:
            raise RequestError(f"--lora names {file!r} twice; give it once, with the weight that it should have")
        found[file] = weight
    return found


def _parts(text: str) -> tuple[str, float]:
    file, colon, number = text.rpartition(":")
    try:
        weight = float(number) if colon else 1.0
    except ValueError:
        return text, 1.0
    if not (file or not colon):
        raise RequestError(f"--lora {text!r} names no file; write it like style.safetensors:0.8")
    return file if colon else text, weight
