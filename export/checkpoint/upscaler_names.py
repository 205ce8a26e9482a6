"""The names that tensors of ESRGAN's network have in files → ours, which are Real-ESRGAN's (BasicSR's).

Three are in use: Real-ESRGAN's, BSRGAN's, and those of ESRGAN's first code, in which most community models are: its
modules are numbered, 0, 1, a doubling's at 3, 6, …, and behind the last of these two more.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ...engine.errors import IncompatibleError
from ...engine.stored.header import StoredTensor
from .original_layout import below

Tensors = Mapping[str, StoredTensor]
ALLOWED = "an upscaler is built from a .safetensors file of ESRGAN (RRDBNet), Real-ESRGAN or Real-ESRGAN Compact"
PREFIXES = ("module.", "netG.", "params_ema.", "params.")
"""What may stand before every name: of whoever has trained or converted it."""
_PART = r"(weight|bias)"
_RENAMED = (
    (rf"body\.(\d+)\.rdb([123])\.(conv[1-5])\.{_PART}", r"body.\1.rdb\2.\3.\4"),
    (rf"(conv_first|conv_body|conv_up[1-4]|conv_hr|conv_last)\.{_PART}", r"\1.\2"),
    (rf"RRDB_trunk\.(\d+)\.RDB([123])\.(conv[1-5])\.{_PART}", r"body.\1.rdb\2.\3.\4"),
    (rf"trunk_conv\.{_PART}", r"conv_body.\1"),
    (rf"upconv([1-4])\.{_PART}", r"conv_up\1.\2"),
    (rf"HRconv\.{_PART}", r"conv_hr.\1"),
    (rf"model\.1\.sub\.(\d+)\.RDB([123])\.(conv[1-5])\.0\.{_PART}", r"body.\1.rdb\2.\3.\4"),
    (r"model\.1\.sub\.(\d+)\.RDB([123])\.conv1x1\.weight", r"body.\1.rdb\2.conv1x1.weight"),
    (rf"model\.1\.sub\.\d+\.{_PART}", r"conv_body.\1"),
)
_PATTERNS = tuple((re.compile(pattern), name) for pattern, name in _RENAMED)
_NUMBERED = re.compile(rf"model\.(\d{{1,2}})\.{_PART}")


def without_prefix(tensors: Tensors) -> Tensors:
    """The same without what stands before every name."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return below(tensors, prefix)
    return tensors


def renamed(tensors: Tensors, path: Path) -> dict[str, StoredTensor]:
    """ESRGAN's tensors under our names. `IncompatibleError` for a file of another network."""
    numbers = sorted({int(found[1]) for name in tensors if (found := _NUMBERED.fullmatch(name))})
    places = dict(zip(numbers[-2:], ("conv_hr", "conv_last"), strict=False)) if len(numbers) > 2 else {}
    places |= {number: f"conv_up{index}" for index, number in enumerate(numbers[1:-2], 1)} | {0: "conv_first"}
    named: dict[str, StoredTensor] = {}
    for name, stored in tensors.items():
        found = _NUMBERED.fullmatch(name)
        ours = f"{places.get(int(found[1]), name)}.{found[2]}" if found else _ours(name)
        if ours is None or ours in named:
            raise IncompatibleError(f"{path} is {other_network(tensors)} (it has {name[:100]}); {ALLOWED}")
        named[ours] = stored
    return named


def other_network(tensors: Tensors) -> str:
    """What spandrel says it is, where that is installed."""
    try:
        import torch
        from spandrel import MAIN_REGISTRY
    except (ImportError, RuntimeError):  # the latter where its torchvision does not fit torch
        return "of another network"
    shown = {name: torch.empty(stored.shape, device="meta") for name, stored in tensors.items()}
    for known in MAIN_REGISTRY.architectures("detection"):
        if known.detect(shown):
            return f"of the network {known.architecture.name}"
    return "of another network, which spandrel does not know either"


def _ours(name: str) -> str | None:
    for pattern, ours in _PATTERNS:
        if found := pattern.fullmatch(name):
            return found.expand(ours)
    return None
