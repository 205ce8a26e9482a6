"""What a call says of a second, larger pass (hires fix), checked."""

from dataclasses import dataclass

from ..architecture import Models
from ..errors import RequestError
from ..pictures_in.input import PictureInput
from ..upscaler import Enlarger
from .limits import integer, number, short_text, show
from .pictures import NO_ENCODER
from .request import GenerationRequest

UPSCALERS = {"latent": "Latent", "lanczos": "Lanczos"}
"""How what the first pass made becomes larger → AUTOMATIC1111's label."""
DEFAULT = "latent"
HASH = "Hires upscaler hash"
"""What pictures call the start of a network's digest; AUTOMATIC1111 tells its name alone."""
_OTHERS = ("hires_strength", "hires_steps", "hires_upscaler")


@dataclass(frozen=True, kw_only=True)
class Hires:
    """The second pass. `height`, `width`: in pixels, multiples of 8."""

    scale: float
    height: int
    width: int
    strength: float
    steps: int | None
    """How many are made; None: `strength` of the first pass's."""
    upscaler: str
    """A key of `UPSCALERS`, or the network's name."""
    network: Enlarger | None = None

    def whole_steps(self, first: int) -> int:
        """How many steps the second pass's schedule has, of which it makes the last ones."""
        if self.steps is None:
            return first
        return max(self.steps, int(self.steps / min(self.strength, 0.999)))  # as AUTOMATIC1111 lays them


def resolve_hires(
    request: GenerationRequest, models: Models, height: int, width: int, loaded: Enlarger | None = None
) -> Hires | None:
    """The second pass of a call whose first has that size; None where it has none. Raises `RequestError`.

    `loaded`: the upscaler beside the engine, which enlarges where the call names none.
    """
    if request.hires_scale is None:
        lone = next((name for name in _OTHERS if getattr(request, name) not in (None, _default(name))), None)
        if lone is not None:
            raise RequestError(f"{lone} counts with hires_scale alone; give it too, or leave {lone} out")
        return None
    if request.image is not None:
        raise RequestError("hires_scale is for pictures out of a prompt; give width and height beside image instead")
    scale, step = number("hires_scale", request.hires_scale), models.vae.downscale
    name, network = _upscaler(request.hires_upscaler, loaded)
    if name != "latent" and not models.encodes:
        raise RequestError(NO_ENCODER.format(what=f"hires_upscaler {name!r}", otherwise=", or choose 'latent'"))
    strength = number("hires_strength", request.hires_strength)
    if not strength:
        raise RequestError("hires_strength is 0, which leaves none of the second pass's steps; raise it")
    steps = None if request.hires_steps is None else integer("hires_steps", request.hires_steps)
    if steps is not None and (request.timesteps is not None or request.sigmas is not None):
        raise RequestError("hires_steps lays steps anew, and timesteps or sigmas say where they lie; give one of them")
    larger = [max(step, round(side * scale / step) * step) for side in (height, width)]
    integer("pixels of a picture", larger[0] * larger[1])
    return Hires(
        scale=scale,
        height=larger[0],
        width=larger[1],
        strength=strength,
        steps=steps,
        upscaler=name,
        network=network,
    )


def second_input(hires: Hires, steps: int) -> PictureInput:
    """What the second pass begins from, before the first has made it; `steps`: of the whole schedule."""
    return PictureInput(
        strength=hires.strength,
        first_step=None if hires.steps is None else steps - hires.steps,
        enlarged_by=hires.network,
    )


def _upscaler(asked: object, loaded: Enlarger | None) -> tuple[str, Enlarger | None]:
    """Its name, and the network where it is one."""
    name = (DEFAULT if loaded is None else loaded.name) if asked is None else short_text("hires_upscaler", asked)
    if loaded is not None and name == loaded.name:
        return name, loaded
    if name.lower() in UPSCALERS:
        return name.lower(), None
    names = [*UPSCALERS, *([] if loaded is None else [loaded.name])]
    load = "" if loaded is not None else ", or give Pipeline.load(..., upscaler=folder) a network (--upscaler)"
    raise RequestError(f"hires_upscaler is {show(asked)}; choose one of {', '.join(names)}{load}")


def _default(name: str) -> object:
    return GenerationRequest.__dataclass_fields__[name].default
