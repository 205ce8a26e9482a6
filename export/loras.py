"""LoRAs that are merged into a checkpoint while it is built: `pocketxl build … --lora FILE:0.8`.

For engines that take none when they run, and for those that should always have one: what comes out is an engine like
any other, as fast and as large. What a file is and means, `engine.adapters.read` says, as for those that are added to
an engine as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path

from ..engine.adapters.pairs import Lora, Pair
from ..engine.adapters.read import read_lora
from ..engine.architecture import Models
from ..engine.errors import RequestError
from .checkpoint.merged import MergedWeights
from .checkpoint.open import Checkpoint
from .components import Assembly, assemble
from .publish.keys import digest_of

Place = tuple[str, str]
"""Kind and part of a checkpoint: `("base", "unet")`."""
Added = dict[str, list[tuple[Pair, float]]]
"""As `checkpoint.merged` takes it."""


def read_loras(loras: Mapping[str | Path, float], models: Models) -> list[tuple[Lora, float]]:
    """The files with their weights. Raises what `read_lora` does, and `RequestError` for a weight that is no number."""
    for path, weight in loras.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise RequestError(f"the weight of LoRA {path} is {weight!r}; give a number, such as 0.8")
    return [(read_lora(Path(path), models), float(weight)) for path, weight in loras.items()]


def merged(assembly: Assembly, loras: list[tuple[Lora, float]]) -> Assembly:
    """The assembly of the same checkpoints with these LoRAs in their weights.

    A text encoder that base and refiner share stays shared: the refiner sees what a LoRA changes there too, as it does
    where an engine takes LoRAs as it runs.
    """
    added: dict[Place, Added] = {}
    for lora, weight in loras:
        for component, pairs in lora.pairs.items():
            for place in _places(component, assembly):
                tensors = added.setdefault(place, {})
                for layer, pair in pairs.items():
                    tensors.setdefault(f"{layer}.weight", []).append((pair, weight))
    told = [[lora.digest, weight] for lora, weight in loras]
    digests = {
        name: digest_of([digest, told]) if _place(name) in added else digest
        for name, digest in assembly.digests.items()
    }
    checkpoints = {kind: _with(checkpoint, kind, added) for kind, checkpoint in assembly.checkpoints.items()}
    refiner = checkpoints.get("refiner")
    return assemble(checkpoints["base"], refiner, _known(digests, refiner), assembly.tiny_decoder)


def _places(component: str, assembly: Assembly) -> list[Place]:
    """Whose weights a component is made from, in every checkpoint that has the same ones."""
    kind, part = _place(assembly.components[component].source)
    digest = assembly.digests[f"{kind}.{part}"]
    return [(other, part) for other in assembly.checkpoints if assembly.digests.get(f"{other}.{part}") == digest]


def _place(source: str) -> Place:
    """`base.unet` → both halves."""
    kind, _, part = source.partition(".")
    return kind, part


def _with(checkpoint: Checkpoint, kind: str, added: Mapping[Place, Added]) -> Checkpoint:
    components = {
        part: MergedWeights(weights, added[kind, part]) if (kind, part) in added else weights
        for part, weights in checkpoint.components.items()
    }
    return replace(checkpoint, components=components)


def _known(digests: Mapping[str, str], refiner: Checkpoint | None) -> Callable[[Checkpoint, str], str]:
    return lambda checkpoint, part: digests[f"{'refiner' if checkpoint is refiner else 'base'}.{part}"]
