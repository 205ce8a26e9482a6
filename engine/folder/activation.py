"""The working memory of a call as a formula over its sizes."""

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SIZES = ("batch", "tokens", "steps", "pixels")
"""What a formula's terms are products of, beside `"1"`."""
MOST_BYTES = 1 << 44
"""16 TiB: more than any component has, and far from where a float or a file system ends."""
_MOST_FACTORS = 4
_MOST_TERMS = 64


@dataclass(frozen=True, kw_only=True)
class ActivationModel:
    """Working memory of one call in bytes: a sum of coefficients, each times a product of sizes.

    Keys name the products over `batch`, `tokens`, `steps` and `pixels` (of the picture): `"1"`, `"batch*pixels"`,
    `"batch*pixels*pixels"`. Fitted by `export.graph.activations`, never below the largest live set at the fitted sizes.
    """

    terms: Mapping[str, float]
    dequantized_bytes: int = 0
    """Weights that are floats only while their layers run, all together; not part of the sum."""

    def bytes_at(self, pixels: int, *, batch: int = 2, tokens: int = 77, steps: int = 50) -> int:
        """Bytes for a picture of `pixels` = width x height; `batch` rows are two for each picture under guidance."""
        sizes = {"1": 1, "batch": batch, "tokens": tokens, "steps": steps, "pixels": pixels}
        return math.ceil(sum(c * math.prod(sizes[s] for s in key.split("*")) for key, c in self.terms.items()))


def activation_faults(where: str, activation: ActivationModel) -> Iterator[str]:
    """What is out of bounds in a formula that `engine.json` has at `where`."""
    if not 0 <= activation.dequantized_bytes <= MOST_BYTES:
        yield f"{where}.dequantized_bytes is {reprlib.repr(activation.dequantized_bytes)}"
    if len(activation.terms) > _MOST_TERMS:
        yield f"{where}.terms are {len(activation.terms)}, at most {_MOST_TERMS} are allowed"
    for key, coefficient in activation.terms.items():
        factors = key.split("*")
        if len(factors) > _MOST_FACTORS or not (key == "1" or set(factors) <= set(SIZES)):
            yield f"{where}.terms has {reprlib.repr(key)}, products of {', '.join(SIZES)} are allowed"
        if not 0 <= coefficient <= MOST_BYTES:
            yield f"{where}.terms.{key} is {coefficient}, 0 to {MOST_BYTES} is allowed"
