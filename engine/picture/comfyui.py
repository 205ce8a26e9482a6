"""The graph inside a picture of ComfyUI → settings under AUTOMATIC1111's names, as far as it is text to image.

ComfyUI keeps what it ran as JSON in the PNG text `prompt`: node id → `{"class_type": …, "inputs": {…}}`, where an input
is a value or a link `[node id, output]`. The last sampler is what made the picture; its links lead to all else.
"""

import json
from collections.abc import Mapping
from typing import Any

from .infotext import NEGATIVE, PROMPT

MAX_CHARACTERS = 1 << 20
_MOST_SAMPLERS = 16
"""That are looked at, from the last one on."""
_SAMPLERS = {
    "euler_ancestral": "Euler a", "dpmpp_2m_sde_gpu": "DPM++ 2M SDE", "dpmpp_sde_gpu": "DPM++ SDE", "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
}  # fmt: skip
_LABELS = {"steps": "Steps", "cfg": "CFG scale", "seed": "Seed", "noise_seed": "Seed"}
_TEXTS = ("text", "text_g", "text_l", "string", "value")


def settings_of(graph: str) -> dict[str, str]:
    """What a graph says; empty for one that cannot be read or has no sampler. Time is linear in its length."""
    try:
        nodes = json.loads(graph) if len(graph) <= MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(nodes, dict):
        return {}
    found = Graph({str(key): node for key, node in nodes.items() if isinstance(node, dict)})
    sampler = found.sampler()
    if sampler is None:
        return {}
    own = found.inputs(sampler)
    settings = {PROMPT: found.text(own.get("positive")) or ""}
    negative = found.text(own.get("negative"))
    if negative is not None:
        settings[NEGATIVE] = negative
    for key, label in _LABELS.items():
        value = found.value(own.get(key))
        if isinstance(value, int | float) and not isinstance(value, bool):
            settings[label] = repr(value).removesuffix(".0")
    name, schedule = found.value(own.get("sampler_name")), found.value(own.get("scheduler"))
    if isinstance(name, str):
        settings["Sampler"] = _SAMPLERS.get(name, name)
    if isinstance(schedule, str):
        settings["Schedule type"] = schedule
    size = found.first(own.get("latent_image"), "width", "height")
    if size is not None:
        settings["Size"] = "x".join(map(str, size))
    model = found.first(own.get("model"), "ckpt_name")
    if model is not None:
        settings["Model"] = str(model[0]).rsplit(".", 1)[0]
    return settings


class Graph:
    """Nodes by id, and what their links lead to; no link is followed twice."""

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self._nodes = nodes

    def inputs(self, node: str) -> Mapping[str, Any]:
        """A node's inputs."""
        found = self._nodes.get(node, {}).get("inputs")
        return found if isinstance(found, dict) else {}

    def sampler(self) -> str | None:
        """The sampler whose latents no other sampler takes: the last one of several."""
        found = [key for key in self._nodes if {"positive", "negative"} <= self.inputs(key).keys()
                 and {"seed", "noise_seed"} & self.inputs(key).keys()]  # fmt: skip
        last = found[-_MOST_SAMPLERS:]
        before = {key for one in last for key in self._behind(self.inputs(one).get("latent_image"))}
        return next((key for key in reversed(last) if key not in before), None)

    def value(self, given: Any) -> Any:
        """A value, through a link to a node that has just one."""
        for node in self._behind(given):
            values = [value for value in self.inputs(node).values() if not isinstance(value, list)]
            return values[0] if len(values) == 1 else None
        return given if not isinstance(given, list) else None

    def text(self, given: Any) -> str | None:
        """The first text behind a link."""
        for node in self._behind(given):
            if self._nodes[node].get("class_type") == "ConditioningZeroOut":
                return None
            for name in _TEXTS:
                if isinstance(text := self.inputs(node).get(name), str):
                    return text
        return None

    def first(self, given: Any, *names: str) -> tuple[Any, ...] | None:
        """The values of the first node behind a link that has all of these."""
        for node in self._behind(given):
            found = tuple(self.inputs(node).get(name) for name in names)
            if all(isinstance(value, int | str) and not isinstance(value, bool) for value in found):
                return found
        return None

    def _behind(self, given: Any) -> list[str]:
        """The nodes that a link leads to, near ones first."""
        seen: dict[str, None] = {}
        waiting = [given]
        for link in waiting:
            if (
                isinstance(link, list)
                and len(link) == 2
                and (key := str(link[0])[:64]) in self._nodes
                and key not in seen
            ):
                seen[key] = None
                inputs = self.inputs(key)
                if {"positive", "negative"} <= inputs.keys() and not {"seed", "noise_seed"} & inputs.keys():
                    # A ControlNet, say, gives both on, each by an output of its own.
                    waiting.append(inputs["negative" if link[1] == 1 else "positive"])
                else:
                    waiting += inputs.values()
        return list(seen)
