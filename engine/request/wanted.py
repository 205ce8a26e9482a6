"""What a request needs of a component beyond its plain graph: inputs of open graphs, besides LoRAs."""

from ..companion import RESIDUALS
from ..image_prompt import IMAGE_KEY_VALUES
from ..t2i_adapter import FEATURES
from .request import ResolvedRequest

_UNET = "base/unet"


def inputs_wanted(request: ResolvedRequest) -> dict[str, tuple[str, ...]]:
    """Component → inputs that its graph must take; one of a kind stands for all."""
    names = [f"{RESIDUALS}.0"] if request.controls else []
    names += [f"{IMAGE_KEY_VALUES}.0.key"] if request.image_prompt is not None else []
    names += [f"{FEATURES}.0"] if request.adapters else []
    return {_UNET: tuple(names)} if names else {}


def features_wanted(request: ResolvedRequest) -> tuple[str, ...]:
    """The components whose deep features are kept from one evaluation to the next."""
    return tuple(f"{kind}/unet" for kind in request.kinds) if request.deep_cache > 1 else ()
