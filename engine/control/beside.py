"""What is loaded beside an engine: ControlNets, T2I adapters, an IP-Adapter and an upscaler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..errors import IncompatibleError
from ..folder.manifest import Manifest
from ..request.controls import Loaded
from ..runners.base import Runner
from ..upscaler import UPSCALER, Enlarger
from ..upscaling.opened import OpenedUpscaler, open_upscaler
from .folders import open_folders
from .image_prompt import IPAdapter, open_ip_adapter
from .network import CONTROLNETS, ControlNet
from .t2i_adapter import T2I_ADAPTERS, T2IAdapter

_DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All of them; nothing by default."""

    controlnets: Mapping[str, ControlNet] = field(default_factory=dict)
    """By name."""
    ip_adapter: IPAdapter | None = None
    t2i_adapters: Mapping[str, T2IAdapter] = field(default_factory=dict)
    """By name."""
    upscaler: OpenedUpscaler | None = None

    @classmethod
    def opened(
        cls,
        folder: Path,
        manifest: Manifest,
        runners: Mapping[str, Runner],
        controlnets: Mapping[str, str | Path] | None,
        ip_adapter: str | Path | None,
        t2i_adapters: Mapping[str, str | Path] | None = None,
        upscaler: str | Path | None = None,
        *,
        threads: int | None,
        provider: str | None,
    ) -> Self:
        """What goes beside the engine in `folder`, whose `runners` are given.

        Raises `IncompatibleError` for a folder that makes no pictures alone, and what `open_folders` raises.
        """
        if manifest.companion is not None:
            raise IncompatibleError(
                f"{folder} is {manifest.companion.kind}, which makes no pictures alone; give it beside an engine"
            )
        models = manifest.models
        how: Any = {"threads": threads, "provider": provider}
        return cls(
            controlnets=open_folders(ControlNet, CONTROLNETS, controlnets or {}, models, runners, **how),
            ip_adapter=open_ip_adapter(ip_adapter, models, runners, **how),
            t2i_adapters=open_folders(T2IAdapter, T2I_ADAPTERS, t2i_adapters or {}, models, runners, **how),
            upscaler=None if upscaler is None else open_upscaler(upscaler, threads=threads, beside=runners.values()),
        )

    def with_runners(self, runners: Mapping[str, Runner]) -> dict[str, Runner]:
        """An engine's runners, and those of what is beside it."""
        others = [one.runners for one in self.controlnets.values()]
        others += [one.runners for one in self.t2i_adapters.values()]
        others += [] if self.ip_adapter is None else [self.ip_adapter.runners]
        others += [] if self.upscaler is None else [{UPSCALER: self.upscaler.runner}]
        return {**runners, **{name: runner for one in others for name, runner in one.items()}}

    @property
    def called(self) -> tuple[dict[str, Loaded], tuple[int | None, str], dict[str, Loaded], Enlarger | None]:
        """For `resolve`: ControlNets, the IP-Adapter (its side and name), T2I adapters, the upscaler."""
        names = {
            name: Loaded(model=_called(one), kinds=one.architecture.control_types)
            for name, one in self.controlnets.items()
        }
        adapters = {name: Loaded(model=_called(one)) for name, one in self.t2i_adapters.items()}
        asks = (None, "") if self.ip_adapter is None else self.ip_adapter.asks
        return names, asks, adapters, None if self.upscaler is None else self.upscaler.known


def _called(one: ControlNet | T2IAdapter) -> str:
    """What pictures call it."""
    return f"{one.model} [{one.digest[:_DIGITS]}]"


NOTHING = Beside()
