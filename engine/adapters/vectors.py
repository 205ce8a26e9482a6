"""Text encoders for prompts with embeddings: their open graphs, which take vectors in place of tokens."""

from collections.abc import Iterator, Mapping

from ..errors import IncompatibleError
from ..inversion.read import TOKEN_EMBEDDINGS, Inversion
from ..request.request import ResolvedRequest
from ..runners.adapted import Adapted, Opens, graph_for
from ..runners.base import Runner


def inversions(request: ResolvedRequest) -> tuple[Inversion, ...]:
    """The embeddings that the texts of a request hold, each once."""
    return tuple(dict.fromkeys(_all(request)))


def taking_vectors(runners: Mapping[str, Runner], request: ResolvedRequest) -> dict[str, Runner]:
    """The text encoders that a request runs on where its prompts hold embeddings; else none.

    `runners`: those that it would run on without, by component. Raises `IncompatibleError` for an engine that was built
    without such graphs.
    """
    found: dict[str, Runner] = {}
    for name in dict.fromkeys(encoder for one in inversions(request) for encoder in one.vectors):
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
                "with `pocketxl build --target cpu` of this release, and run it on a processor"
            )
        found[name] = opened
    return found


def _all(request: ResolvedRequest) -> Iterator[Inversion]:
    for prompt in request.prompts:
        for text in (prompt.prompt, prompt.prompt_2, prompt.negative_prompt, prompt.negative_prompt_2):
            if text is not None:
                for one in (text, *(each for _, each in text.schedule)):
                    yield from (what for what, _ in one.runs if isinstance(what, Inversion))
