"""The back ends. A manifest names the one that each component needs; a new back end is a row in `BACK_ENDS`."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

from ..errors import IncompatibleError, RequestError
from ..folder.manifest import Manifest
from ..request.limits import integer, show
from .base import Device, Runner

BACK_ENDS: Mapping[str, tuple[str, str, str]] = {
    "ort": (".ort", "OrtDevice", "OrtRunner"),
    "ort_bands": (".ort_bands", "OrtDevice", "BandsRunner"),
    "openvino": (".openvino", "OpenVinoDevice", "OpenVinoRunner"),
    "openvino_bands": (".openvino_bands", "OpenVinoDevice", "OpenVinoBandsRunner"),
    "tensorrt": (".tensorrt", "CudaDevice", "TensorRTRunner"),
    "tensorrt_full": (".tensorrt", "CudaDevice", "FullTensorRTRunner"),
    "cuda": (".cuda", "CudaDevice", "CudaRunner"),
}
"""Kind (`tensorrt` is TensorRT for RTX, `tensorrt_full` TensorRT) → module, and in it the class of the device that an
engine's runners share, and that of the runners; imported only when an engine asks for it."""
SHARES = {"ort_bands": "ort", "openvino_bands": "openvino"}
"""Kinds whose runners share another one's device."""


def open_runners(
    folder: Path,
    manifest: Manifest,
    *,
    threads: int | None = None,
    provider: str | None = None,
    beside: Iterable[Runner] = (),
    rename: Callable[[str], str] = str,
) -> dict[str, Runner]:
    """One runner per component, and one device for all of a kind; nothing loaded yet.

    `provider`: what of ONNX Runtime computes (None: what suits the engine best; see `ort_providers.choose_provider`).
    `beside`: an engine's, whose devices are shared, and whose provider then computes this folder too if it can compute
    its formats, or else the processor. `rename`: what components are called, where the folder's own
    names are not what they should be.
    Raises `IncompatibleError` for a kind that this release lacks and for a provider that is not here, `RequestError`
    for a senseless number of threads and for a provider that cannot compute this engine.
    """
    if threads is not None:
        integer("threads", threads)  # a hundred thousand would take the whole machine down
    devices: dict[str, Device] = {}
    runners: dict[str, Runner] = {}
    for name, entry in manifest.components.items():
        if entry.runner not in BACK_ENDS:
            raise IncompatibleError(
                f"{name} needs the runner {show(entry.runner)}, this release has {', '.join(BACK_ENDS)}; "
                "install a newer pocketxl"
            )
        device, runner = back_end(entry.runner)
        kind = SHARES.get(entry.runner, entry.runner)
        if kind not in devices:
            devices[kind] = _device(kind, device, manifest, threads, provider, [one.device for one in beside])
        called = rename(name)
        runners[called] = runner(folder, called, entry, devices[kind])
    return runners


def check_concurrent(calls: int, runners: Iterable[Runner]) -> None:
    """Raise `RequestError` for several calls at once on a device that takes them one after another."""
    if calls > 1 and not all(runner.device.concurrent for runner in runners):
        raise RequestError(
            f"max_concurrent_calls is {calls}, but this engine computes on a GPU, where calls run "
            "one after another; leave it at 1"
        )


def back_end(kind: str) -> tuple[Callable[..., Device], Callable[..., Runner]]:
    """What makes the device of a kind, and its runners: `device(threads=…)`, `runner(folder, name, entry, device)`."""
    module, device, runner = BACK_ENDS[kind]
    imported = import_module(module, __name__)
    return getattr(imported, device), getattr(imported, runner)


def _device(
    kind: str,
    make: Callable[..., Device],
    manifest: Manifest,
    threads: int | None,
    provider: str | None,
    beside: Iterable[Device],
) -> Device:
    """One of those that are there already if it can compute these components, or a new one."""
    if kind != "ort":
        _refuse_provider(manifest, provider)
        made = make(threads=threads)
        return next((one for one in beside if type(one) is type(made)), made)
    from .ort import OrtDevice
    from .ort_providers import CPU, choose_provider, computes

    entries = [entry for entry in manifest.components.values() if SHARES.get(entry.runner, entry.runner) == kind]
    formats = {format for entry in entries for format in entry.formats}
    near = next((one for one in beside if isinstance(one, OrtDevice)), None)
    if near is None:
        return make(threads=threads, provider=choose_provider(provider, formats))
    return near if computes(near.provider, formats) else make(threads=threads, provider=CPU)


def _refuse_provider(manifest: Manifest, provider: str | None) -> None:
    """Raise `RequestError` for a provider of ONNX Runtime where it computes nothing."""
    kinds = {SHARES.get(entry.runner, entry.runner) for entry in manifest.components.values()}
    if provider is not None and "ort" not in kinds:
        raise RequestError(
            f"provider is {show(provider)}, but this engine is for {manifest.target}, which ONNX Runtime does not run; "
            "leave the provider out"
        )
