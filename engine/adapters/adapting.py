"""Which LoRAs a pipeline's calls have, and what each of them runs on then.

A LoRA changes nothing of the engine: a component that it touches is run by one of its open graphs, with the LoRA's
pairs as inputs. Components that no LoRA touches are run as ever.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..architecture import Models
from ..errors import IncompatibleError
from ..folder.openings import Shape
from ..request.loras import Loras, LoraUse, lora_uses
from ..request.request import ResolvedRequest
from ..request.wanted import features_wanted, inputs_wanted
from ..runners.adapted import Adapted, OpenRunner, Opens, graph_for, openings_of
from ..runners.base import Runner
from ..runners.cached import cached_for
from .additions import additions
from .factors import Factors, read_factors
from .pairs import Floats, Lora, Pair
from .shelf import Read, Shelf, read_file
from .vectors import taking_vectors

Joined = Mapping[str, Mapping[str, Mapping[str, Floats]]]
"""Component → layer → the inputs that add to it."""
_KEPT = 2
"""Joined sets of LoRAs: calls that take turns with and without one more."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Effect:
    """What one call runs on."""

    runners: Mapping[str, Runner]
    bytes: int = 0
    """What its LoRAs take on the host, all the time."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Component → what has been added to it, for those that are not as ever: their outputs are others."""


class Adapting:
    """The LoRAs of one pipeline; safe to share between threads."""

    def __init__(self, runners: Mapping[str, Runner], models: Models, read: Read = read_file) -> None:
        self.runners = runners
        self._models, self._reader = models, read
        self._shelf = Shelf(models, read)
        self._lock = threading.Lock()
        self._factors: dict[str, Mapping[str, Factors]] = {}
        self._joined: OrderedDict[tuple[object, ...], Joined] = OrderedDict()
        self.own: Loras = {}
        """Those of calls that name none: file → weight."""

    def set(self, loras: Loras) -> None:
        """Let calls that name none have these. Reads them first; raises `RequestError` and `IncompatibleError`."""
        uses = self._read(lora_uses(loras))
        self._join(uses)
        self.own = dict(loras)

    def anew(self) -> "Adapting":
        """The same with locks of its own, for a process that was forked from this one."""
        found = Adapting(self.runners, self._models, self._reader)
        found.own = self.own
        return found

    def named(self, request: ResolvedRequest) -> ResolvedRequest:
        """A request whose LoRAs were read, and fit the engine. Raises as `set` does."""
        if not request.loras:
            return request
        uses = self._read(request.loras)
        self._join(uses)
        return replace(request, loras=uses)

    def effect(self, request: ResolvedRequest) -> Effect:
        """What a request that `named` gave runs on."""
        found = self._with_loras(request)
        opened = taking_vectors(found.runners, request)
        if not opened:
            return found
        # An open graph may round otherwise, so that its outputs are kept apart.
        keys = {**dict.fromkeys(opened, "open"), **found.keys}
        return replace(found, runners={**found.runners, **opened}, keys=keys)

    def _with_loras(self, request: ResolvedRequest) -> Effect:
        wanted, cached = inputs_wanted(request), features_wanted(request)
        if not (request.loras or wanted or cached):
            return Effect(runners=self.runners)
        joined = self._join(request.loras) if request.loras else {}
        names = dict.fromkeys([*joined, *wanted, *cached])
        opened = {
            name: self._open(name, joined.get(name, {}), wanted.get(name, ()), cached=name in cached) for name in names
        }
        runners, keys = {**self.runners, **opened}, dict.fromkeys(joined, _key(request.loras))
        arrays = [array for layers in joined.values() for layer in layers.values() for array in layer.values()]
        return Effect(runners=runners, keys=keys, bytes=self._shelf.bytes() + sum(array.nbytes for array in arrays))

    def _open(
        self, component: str, layers: Mapping[str, Mapping[str, Floats]], inputs: Sequence[str], *, cached: bool
    ) -> Runner:
        """A component's open graph that takes these pairs, which are held, and these inputs, which calls will give.

        `cached`: the two graphs that keep deep features, which take the same.
        """
        runner = self.runners[component]
        opened: OpenRunner | None
        if cached:
            opened = cached_for(runner, layers, inputs)
        elif not layers and {*inputs} <= {tensor.name for tensor in runner.spec.inputs}:
            return runner
        else:
            graph = graph_for(runner, layers, inputs) if isinstance(runner, Opens) else None
            opened = runner.opened(graph) if graph is not None and isinstance(runner, Opens) else None
        if opened is None:
            asked = "keeps deep features; leave deep_cache at 1, or" if cached else "takes what was asked for;"
            raise IncompatibleError(
                f"this engine has no graph of {component} that {asked} build it again with this release, with "
                "--target cpu or, for GPUs, onnx-fp16"
            )
        if not layers:
            return opened
        held = opened.hold({name: array for layer in layers.values() for name, array in layer.items()})
        return Adapted(open=opened, additions=held)

    def _read(self, uses: tuple[LoraUse, ...]) -> tuple[LoraUse, ...]:
        found = [(use, self._shelf.get(use.file)) for use in uses]
        return tuple(
            replace(use, name=lora.name, digest=lora.digest, short_hash=lora.short_hash, notes=lora.notes())
            for use, lora in found
        )

    def _join(self, uses: tuple[LoraUse, ...]) -> Joined:
        key = tuple((use.digest, use.weight, use.text_weight) for use in uses)
        with self._lock:
            if key not in self._joined:
                loras = [(self._shelf.get(use.file), use) for use in uses]
                self._joined[key] = self._made(loras)
            self._joined.move_to_end(key)
            while len(self._joined) > _KEPT:
                self._joined.popitem(last=False)
            return self._joined[key]

    def _made(self, uses: list[tuple[Lora, LoraUse]]) -> Joined:
        found = {}
        loras = [(self._placed(lora), use) for lora, use in uses]
        for component in dict.fromkeys(name for lora, _ in loras for name, pairs in lora.pairs.items() if pairs):
            names = ", ".join(lora.name for lora, _ in loras if lora.pairs.get(component))
            runner = self.runners.get(component)
            if runner is None:
                continue  # an engine without the refiner that it was made for too
            openings = openings_of(runner)
            if openings is None:
                raise IncompatibleError(
                    f"LoRA {names} changes {component}, and this engine has no graph of it that takes any; build it "
                    "again with this release, with --target cpu or, for GPUs, cuda or onnx-fp16"
                )
            weighed = [(lora, weight) for lora, use in loras if (weight := use.weight_in(component))]
            found[component] = additions(weighed, component, openings, self._factors_of(component, runner))
        return {component: layers for component, layers in found.items() if layers}

    def _placed(self, lora: Lora) -> Lora:
        """The LoRA with what the U-Net's conditioner has taken over of it in its place."""
        pairs: dict[str, dict[str, Pair]] = {}
        for component, layers in lora.pairs.items():
            other = component.replace("/unet", "/conditioner")
            openings = openings_of(self.runners.get(other)) if other != component else None
            there: Mapping[str, Shape] = {} if openings is None else openings.shapes(tuple(openings.layers))
            for layer, pair in layers.items():
                pairs.setdefault(other if layer in there else component, {})[layer] = pair
        return replace(lora, pairs=pairs)

    def _factors_of(self, component: str, runner: object) -> Mapping[str, Factors]:
        if component not in self._factors:
            file = runner.factors_file() if isinstance(runner, Opens) else None
            self._factors[component] = {} if file is None else read_factors(file)
        return self._factors[component]


def _key(uses: tuple[LoraUse, ...]) -> str:
    text = "".join(f"{use.digest} {use.weight!r} {use.text_weight!r}\n" for use in uses)
    return hashlib.sha256(text.encode()).hexdigest()
