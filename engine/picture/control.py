"""ControlNets in the settings of a picture, as sd-webui-controlnet writes them: `ControlNet 0: "Module: canny, …"`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..request.control_modes import name_of, number_of
from ..request.controls import PREPROCESSORS, ControlUse
from ..request.image_prompt import ImagePrompt
from ..request.t2i_adapters import AdapterUse

KEY, IP_ADAPTER, T2I_ADAPTER = "ControlNet", "IP-Adapter", "T2I-Adapter"
_MODE = "Union Control Type"
"""After sd-webui-controlnet's `union_control_type`."""
_MOST = 64


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a picture says of one ControlNet; None where it says nothing that can be read. The hint is not inside."""

    module: str | None = None
    weight: float | None = None
    start: float | None = None
    end: float | None = None
    mode: str | None = None


def describe_controls(uses: tuple[ControlUse, ...]) -> dict[str, str]:
    """The settings of a picture's ControlNets: one for each hint, of which a union may have several."""
    return {
        f"{KEY} {index}": (
            f"Module: {use.preprocess or 'none'}, Model: {use.model}, Weight: {_plain(hint.scale)}, "
            f"Resize Mode: Just Resize, Guidance Start: {_plain(use.start)}, Guidance End: {_plain(use.end)}"
            + ("" if hint.mode is None else f", {_MODE}: {name_of(hint.mode)}")
        )
        for index, (use, hint) in enumerate((use, hint) for use in uses for hint in use.hints)
    }


def describe_adapters(uses: tuple[AdapterUse, ...]) -> dict[str, str]:
    """The settings of a picture's T2I adapters, in the words of ControlNets'."""
    return {
        f"{T2I_ADAPTER} {index}": (
            f"Module: {use.preprocess or 'none'}, Model: {use.model}, Weight: {_plain(use.scale)}, "
            f"Guidance End: {_plain(use.factor)}"
        )
        for index, use in enumerate(uses)
    }


def describe_image_prompt(prompt: ImagePrompt | None) -> dict[str, str]:
    """The settings of a picture's IP-Adapter: ours, for AUTOMATIC1111 has it as one more ControlNet."""
    if prompt is None:
        return {}
    return {IP_ADAPTER: f"Model: {prompt.model}, Weight: {_plain(prompt.scale)}, Pictures: {len(prompt.pixels)}"}


def read_weight(settings: Mapping[str, str]) -> float | None:
    """What settings say of how much an IP-Adapter counted."""
    return _number(_values(settings.get(IP_ADAPTER, "")).get("Weight"))


def read_controls(settings: Mapping[str, str], key: str = KEY) -> list[Described]:
    """What settings say of ControlNets (or, with its key, T2I adapters), in their order; ours, or another program's."""
    found = []
    for index in range(_MOST):
        text = settings.get(f"{key} {index}")
        if text is None:
            break
        values = _values(text)
        module = values.get("Module", "").lower()
        found.append(
            Described(
                module=module if module in PREPROCESSORS else None,
                weight=_number(values.get("Weight")),
                start=_number(values.get("Guidance Start")),
                end=_number(values.get("Guidance End")),
                mode=_mode(values.get(_MODE, "")),
            )
        )
    return found


def is_control(key: str) -> bool:
    """Whether a setting of that name is of what steers by a picture."""
    name, _, number = key.partition(" ")
    return key == IP_ADAPTER or (name in (KEY, T2I_ADAPTER) and number.isdigit())


def _values(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (part.partition(":") for part in text.split(","))}


def _mode(text: str) -> str | None:
    number = number_of(text)
    return None if number is None else name_of(number)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
