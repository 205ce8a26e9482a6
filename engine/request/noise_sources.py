"""Where each picture's noise comes from: a seed, or the caller's own torch generators."""

import sys
from typing import Any

import numpy as np

from ..errors import RequestError
from .limits import integer, listed, show

Sources = tuple[tuple[int | None, ...], tuple[Any, ...] | None]
"""One seed a picture (None where no seed stands for its noise), and the generators to draw from instead, if any."""


def noise_sources(seed: object, generator: Any, images: int) -> Sources:
    """Check `seed` and `generator` of a call for that many pictures. Raises `RequestError`.

    A single seed counts up from picture to picture (AUTOMATIC1111's convention); without any, one is drawn. torch
    generators mean what they mean in diffusers: noise is drawn from them, and their state moves.
    """
    if generator is None:
        return _seeds(_drawn() if seed is None else seed, images), None
    if seed is not None:
        raise RequestError("seed and generator were both given; give one of them")
    several = isinstance(generator, list | tuple)
    generators: list[Any] = list(generator) if several else [generator]
    if all(_is_torchs(each) for each in generators):
        if several and len(generators) != images:
            raise _wrong_count("generators", len(generators), images)
        alone = len(generators) == images
        return tuple(_seed_of(generators[i]) if alone else None for i in range(images)), tuple(generators)
    numbers = [_number_from(each) for each in generators]
    return _seeds(numbers if several else numbers[0], images), None


def _seeds(seed: object, images: int) -> tuple[int, ...]:
    if isinstance(seed, list | tuple | range | np.ndarray):
        seeds = listed("seed", seed)
        if len(seeds) != images:
            raise _wrong_count("seeds", len(seeds), images)
        return tuple(integer("seed", value) for value in seeds)
    first = integer("seed", seed)
    return tuple(integer("seed", first + i) for i in range(images))


def _drawn() -> int:
    import secrets

    # 32 bits: a number that people can copy, and every other interface accepts.
    return secrets.randbits(32)


def _is_torchs(generator: Any) -> bool:
    return callable(getattr(generator, "initial_seed", None)) and "torch" in sys.modules


def _seed_of(generator: Any) -> int | None:
    """The seed that a torch generator was made with, if nothing has been drawn from it yet."""
    torch = sys.modules["torch"]
    seed = int(generator.initial_seed())
    if generator.device.type != "cpu":
        return None  # a GPU's stream is another than the one that our seeds stand for
    fresh = torch.Generator(generator.device).manual_seed(seed)
    return seed if 0 <= seed < 1 << 64 and torch.equal(fresh.get_state(), generator.get_state()) else None


def _number_from(generator: Any) -> int:
    if callable(getattr(generator, "integers", None)):
        return int(generator.integers(1 << 32))
    raise RequestError(
        f"generator is {show(generator)}; give a torch.Generator, a numpy.random.Generator, a list of one kind with "
        "one for each picture, or a seed"
    )


def _wrong_count(what: str, count: int, images: int) -> RequestError:
    return RequestError(f"{count} {what} were given for {images} pictures; give one for each, or a single one")
