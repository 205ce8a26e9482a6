"""The scales that a file's notes give where its tensors have no alpha: PEFT's and diffusers' settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import IntegrityError
from .keys import TE1, TE2, UNET

NOTE = "lora_adapter_metadata"
"""diffusers' key of a file's notes: a JSON object of `unet.r`, `unet.lora_alpha`, `text_encoder.r`, …"""
BESIDE = "adapter_config.json"
"""PEFT's own settings, which lie beside `adapter_model.safetensors`."""
_MOST_BYTES = 1 << 20
_PLACES = {UNET: "unet", TE1: "text_encoder", TE2: "text_encoder_2"}


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What alpha is in one place of a file."""

    alpha: float
    patterns: Mapping[str, float] = field(default_factory=dict)
    """The end of a module's name (with `_` for every dot) → its own alpha."""
    root: bool = False
    """Whether alpha is divided by the rank's root (rank-stabilised LoRA)."""

    def scale(self, module: str, rank: int) -> float:
        """What a module's pair is multiplied by."""
        own = [alpha for name, alpha in self.patterns.items() if module == name or module.endswith(f"_{name}")]
        return (own[0] if own else self.alpha) / (rank**0.5 if self.root else rank)


def read_scaling(path: Path, metadata: Mapping[str, str]) -> dict[str, Scaling]:
    """By place, as far as settings are there. Raises `IntegrityError` for settings that cannot be understood."""
    if NOTE in metadata:
        values = _parse(metadata[NOTE], f"the note {NOTE} in {path}")
        return {
            place: scaling
            for place, prefix in _PLACES.items()
            if (scaling := _scaling({k[len(prefix) + 1 :]: v for k, v in values.items() if k.startswith(f"{prefix}.")}))
        }
    beside = path.with_name(BESIDE)
    if path.name.startswith("adapter_model") and beside.is_file():
        if beside.stat().st_size > _MOST_BYTES:
            raise IntegrityError(f"{beside} is larger than any adapter's settings; save the adapter again")
        scaling = _scaling(_parse(beside.read_text("utf-8", "replace"), str(beside)))
        return {} if scaling is None else dict.fromkeys(_PLACES, scaling)
    return {}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is no JSON ({error}); save the adapter again") from error
    if not isinstance(values, dict):
        raise IntegrityError(f"{where} is no JSON object; save the adapter again")
    return values


def _scaling(values: Mapping[str, Any]) -> Scaling | None:
    alpha, patterns = values.get("lora_alpha"), values.get("alpha_pattern") or {}
    if not _number(alpha):
        return None
    named = patterns.items() if isinstance(patterns, dict) else ()
    return Scaling(
        alpha=float(alpha),
        patterns={str(name).replace(".", "_"): float(own) for name, own in named if _number(own)},
        root=values.get("use_rslora") is True,
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
