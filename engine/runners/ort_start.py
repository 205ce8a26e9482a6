"""Sessions of ONNX Runtime on another provider than its processor's."""

import io
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError
from ..install import needing
from .ort_providers import Provider
from .ort_session import FATAL, import_onnxruntime, session_options


def start_session(provider: Provider, model: Path, threads: int, *, patterns: bool) -> Any:
    """A session of `model` on a provider; the model's files must have been checked.

    Raises `IncompatibleError` where the provider does not start, which ONNX Runtime itself only logs before it goes on
    with the processor, and what ONNX Runtime raises.
    """
    ort = import_onnxruntime()
    ort.set_default_logger_severity(FATAL)  # what a provider says while it is loaded is logged by no session
    options = session_options(ort, threads, patterns=patterns and provider.patterns)
    why = ""
    if provider.plug_in:
        options.add_provider_for_devices(_devices(ort, provider), dict(provider.options))
        session = ort.InferenceSession(str(model), options, enable_fallback=0)
    else:
        why = _preload(ort, provider)
        providers = [(provider.identifier, dict(provider.options)), "CPUExecutionProvider"]
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    if provider.identifier not in session.get_providers():
        raise cannot_start(provider, why)
    return session


def cannot_start(provider: Provider, why: str) -> IncompatibleError:
    """What it means that a provider is here and does not work."""
    reason = f" ({why})" if why else ""
    return IncompatibleError(
        f"ONNX Runtime cannot start {provider.name} on this machine{reason}; install or update the GPU's driver and "
        "the libraries that it needs, or compute on the processor with provider cpu"
    )


def _preload(ort: Any, provider: Provider) -> str:
    """Bring in NVIDIA's libraries where they lie among Python's packages; what was missing, in a few words."""
    if provider.memory != "cuda" or not hasattr(ort, "preload_dlls"):
        return ""
    said = io.StringIO()
    with redirect_stdout(said):  # it prints what it does not find, and our output may be read by machines
        ort.preload_dlls()
    return next((line.strip() for line in said.getvalue().splitlines() if line.startswith("Failed to load")), "")


def _devices(ort: Any, provider: Provider) -> list[Any]:
    """The device that a plug-in is to use, its library registered: its first GPU, or else the first that it has."""
    with needing(provider.plug_in, f"provider {provider.name}", provider.extra):
        module = import_module(provider.plug_in)

    def found() -> list[Any]:
        return [device for device in ort.get_ep_devices() if device.ep_name == provider.identifier]

    if not found():  # a second registration is an error
        try:
            ort.register_execution_provider_library(provider.identifier, module.get_library_path())
        except Exception as error:  # ONNX Runtime's own classes are no part of its interface
            raise cannot_start(provider, str(error)) from error
    devices = sorted(found(), key=lambda device: device.device.type != ort.OrtHardwareDeviceType.GPU)
    if not devices:
        raise cannot_start(provider, "it knows no device here")
    return devices[:1]
