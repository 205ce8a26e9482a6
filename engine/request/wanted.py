"""What a request needs of a component beyond its plain graph: inputs of open graphs, besides LoRAs."""

from ..companion import RESIDUALS
from .request import ResolvedRequest

_UNET = "base/unet"


def inputs_wanted(request: ResolvedRequest) -> dict[str, tuple[str, ...]]:
    """Component → inputs that its graph must take; one of a kind stands for all."""
    names = [f"{RESIDUALS}.0"] if request.controls else []
    return {_UNET: tuple(names)} if names else {}
