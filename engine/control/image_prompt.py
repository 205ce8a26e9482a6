"""An IP-Adapter's folder, opened beside an engine, and the keys and values that it makes of a call's pictures."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..adapters.factors import Factors, read_factors
from ..architecture import Models
from ..conditioning import Conditioning
from ..errors import IncompatibleError, RequestError
from ..folder.manifest import read_manifest
from ..image_prompt import IMAGE_KEY_VALUES, IPAdapterArchitecture
from ..memory.controls import IMAGE_PROMPT, MODEL
from ..request.image_prompt import ImagePrompt
from ..runners import open_runners
from ..runners.adapted import Opens, form_of
from ..runners.base import Runner, call, check_outputs

_DIGITS = 8
Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class IPAdapter:
    """One that is loaded beside an engine."""

    architecture: IPAdapterArchitecture
    runners: Mapping[str, Runner]
    model: str

    @property
    def asks(self) -> tuple[int, str]:
        """The side of the pictures that it takes, and what it is called: for `resolve`."""
        return self.architecture.vision.image_size, self.model

    @property
    def encoder(self) -> Runner:
        """Picture → features."""
        return self.runners[f"{IMAGE_PROMPT}/encoder"]

    @property
    def projection(self) -> Runner:
        """Features → keys and values."""
        return self.runners[f"{IMAGE_PROMPT}/projection"]


def open_ip_adapter(
    path: str | Path | None,
    models: Models,
    runners: Mapping[str, Runner],
    *,
    threads: int | None = None,
    provider: str | None = None,
) -> IPAdapter | None:
    """Open an adapter's folder. Raises as `folders.open_folders` does."""
    if path is None:
        return None
    if not isinstance(path, str | Path):
        raise RequestError(f"ip_adapter is {reprlib.repr(path)}; give the folder that `build-ip-adapter` made")
    folder = Path(path)
    manifest = read_manifest(folder)
    architecture = None if manifest.companion is None else manifest.companion.ip_adapter
    if architecture is None:
        raise IncompatibleError(f"{folder} is no IP-Adapter; build one with `pocketxl build-ip-adapter`")
    if MODEL not in models.denoisers:
        raise IncompatibleError(f"{folder} is an IP-Adapter for a base, and this engine has none")
    if misfit := architecture.misfits(models.denoisers[MODEL].unet):
        raise IncompatibleError(f"{folder} does not fit this engine: {misfit}; take one for its kind of model")
    opened = open_runners(folder, manifest, threads=threads, provider=provider, beside=runners.values())
    return IPAdapter(
        architecture=architecture,
        runners=opened,
        model=f"{folder.resolve().name} [{manifest.digest[:_DIGITS]}]",
    )


def features_of(encoder: Runner, prompt: ImagePrompt, *, plus: bool) -> tuple[npt.NDArray[np.float32], ...]:
    """The features of all pictures, and those of none: of a black picture where patches are read, else zeros.

    `[pictures, …]` each. Raises `NumericError` for NaN or Inf.
    """

    def encoded(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        outputs = call(encoder, {"pixels": pixels})
        check_outputs(encoder.name, outputs)
        return outputs["features"]

    found = np.concatenate([encoded(picture[None]) for picture in prompt.pixels])
    if not plus:
        return found, np.zeros_like(found)
    return found, np.repeat(encoded(np.zeros_like(prompt.pixels[:1])), len(found), axis=0)


def key_values_of(
    projection: Runner,
    features: npt.NDArray[np.float32],
    scale: float,
    factors: Mapping[str, Factors],
    blocks: Sequence[str],
) -> Arrays:
    """Keys and values of several pictures, side by side: name → `[1, pictures · tokens, width]`.

    `factors`: of the layers that make the engine's own keys and values, whose channels a build may have scaled;
    `blocks`: what its transformer blocks are called, in running order. Raises `NumericError` for NaN or Inf.
    """
    outputs = call(projection, {"features": features})
    check_outputs(projection.name, outputs)
    found = {}
    for index, block in enumerate(blocks):
        for part, layer, times in (("key", "to_k", 1.0), ("value", "to_v", scale)):
            name = f"{IMAGE_KEY_VALUES}.{index}.{part}"
            array = outputs[name].reshape(1, -1, outputs[name].shape[-1]) * np.float32(times)
            own = factors.get(f"{block}.attn2.{layer}")
            found[name] = array if own is None or own.outputs is None else array * own.outputs
    return found


def factors_of(conditioner: Runner) -> Mapping[str, Factors]:
    """By what a build has scaled the channels of an engine's own keys and values, by layer."""
    runner = form_of(conditioner)
    file = runner.factors_file() if isinstance(runner, Opens) else None
    return {} if file is None else read_factors(file)


def with_pictures(
    prompts: Sequence[Sequence[tuple[Conditioning, ...]]], pictured: tuple[Arrays, Arrays]
) -> list[list[tuple[Conditioning, ...]]]:
    """What a U-Net is given, with keys and values of pictures for each prompt and those of none for its negative.

    A prompt's rows, over its calls, are its own and then the negative's. What was the same object stays one.
    """
    found: dict[int, tuple[Conditioning, ...]] = {}
    for texts in prompts:
        for sides in texts:
            if id(sides) not in found:
                found[id(sides)] = _with_pictures(sides, pictured)
    return [[found[id(sides)] for sides in texts] for texts in prompts]


def _with_pictures(sides: tuple[Conditioning, ...], pictured: tuple[Arrays, Arrays]) -> tuple[Conditioning, ...]:
    row, calls = 0, []
    for side in sides:
        count = side.time_vectors.shape[1]
        arrays = pictured[row : row + count]
        added = {name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]}
        calls.append(Conditioning(time_vectors=side.time_vectors, key_values={**side.key_values, **added}))
        row += count
    return tuple(calls)
