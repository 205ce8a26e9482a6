"""The form of a U-Net that ControlNets can add to."""

from collections.abc import Mapping, Sequence

from ..companion import RESIDUALS
from ..errors import IncompatibleError
from ..memory.controls import MODEL
from ..request.controls import ControlUse
from ..runners.adapted import Opens, graph_for
from ..runners.base import Runner

FIRST = f"{RESIDUALS}.0"


def open_for(runners: Mapping[str, Runner], controls: Sequence[ControlUse]) -> Mapping[str, Runner]:
    """A call's runners: as they are, and where ControlNets take part with the U-Net that they add to.

    Raises `IncompatibleError` for an engine that was built without what they need.
    """
    if not controls:
        return runners
    name = f"{MODEL}/unet"
    unet = runners[name]
    if any(tensor.name == FIRST for tensor in unet.spec.inputs):
        return runners
    graph = graph_for(unet, (), (FIRST,)) if isinstance(unet, Opens) else None
    if graph is None or not isinstance(unet, Opens):
        raise IncompatibleError(
            "this engine cannot be steered by ControlNets: it was built without the graphs for it, or for a target "
            "that has none; build it again with `pocketxl build` for the target cpu"
        )
    return {**runners, name: unet.opened(graph)}
