"""Text encoders for prompts with embeddings: their open graphs, which take vectors in place of tokens."""

from collections.abc import Mapping

from ..errors import IncompatibleError
from ..inversion.read import TOKEN_EMBEDDINGS
from ..request.request import ResolvedRequest
from ..runners.adapted import Adapted, Opens, graph_for
from ..runners.base import Runner


def taking_vectors(runners: Mapping[str, Runner], request: ResolvedRequest) -> dict[str, Runner]:
    """The text encoders that a request runs on where its prompts hold embeddings; else none.

    `runners`: those that it would run on without, by component. Raises `IncompatibleError` for an engine that was built
    without such graphs.
    """
    found: dict[str, Runner] = {}
    used = [one for prompt in request.prompts for one in prompt.inversions]
    for name in dict.fromkeys(encoder for one in used for encoder in one.vectors):
        runner = runners[name]
        if isinstance(runner, Adapted):
            takes = any(tensor.name == TOKEN_EMBEDDINGS for tensor in runner.open.graph.inputs)
            opened: Runner | None = runner if takes else None
        else:
            graph = graph_for(runner, (), (TOKEN_EMBEDDINGS,)) if isinstance(runner, Opens) else None
            opened = runner.opened(graph) if graph is not None and isinstance(runner, Opens) else None
        if opened is None:
            raise IncompatibleError(
                f"the prompt holds embeddings, and this engine has no graph of {name} that takes any; build it again "
                "with this release, with --target cpu or, for GPUs, cuda or onnx-fp16"
            )
        found[name] = opened
    return found
