"""The stand-in of TensorRT for RTX has no name, parameter or value that the installed library lacks."""

import inspect
import re
from enum import IntEnum
from typing import Any

import pytest

from ...fixtures import tensorrt_on_host as stand_in

trt: Any = pytest.importorskip("tensorrt_rtx")
CLASSES = [
    kind
    for name, kind in vars(stand_in).items()
    if inspect.isclass(kind) and kind.__module__ == stand_in.__name__ and name != "Library"
]
ENUMS = [kind for kind in CLASSES if issubclass(kind, IntEnum)]
OBJECTS = [kind for kind in CLASSES if kind not in ENUMS]


def signatures(function: Any) -> list[list[str]]:
    """Parameter names of every overload, out of the bindings' docstring."""
    found = re.findall(r"^\s*(?:\d+\. )?\w+\(self: [\w.]+(?:, (.*))?\) ->", function.__doc__, re.M)
    return [re.findall(r"(\w+): ", re.sub(r"<.*?>", "", part)) for part in found]  # defaults are written `<A: 0>`


def test_there_is_something_to_compare() -> None:
    assert {kind.__name__ for kind in OBJECTS} == {
        "ICudaEngine", "IExecutionContext", "ILogger", "IRuntimeCache", "IRuntimeConfig", "Runtime",
    }  # fmt: skip
    assert len(ENUMS) == 6


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: str(kind.__name__))
def test_values_are_the_library_s(kind: type[IntEnum]) -> None:
    real = getattr(trt, kind.__name__).__members__
    for member in kind:
        if kind is stand_in.ComputeCapability:
            assert member.name in real
        else:
            assert int(real[member.name]) == member


@pytest.mark.parametrize("kind", OBJECTS, ids=lambda kind: str(kind.__name__))
def test_names_and_parameters_are_the_library_s(kind: type[Any]) -> None:
    real = getattr(trt, kind.__name__)
    public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    assert public
    for name, value in public.items():
        assert hasattr(real, name), f"{kind.__name__}.{name}"
        theirs = inspect.getattr_static(real, name)
        if inspect.isfunction(value) and kind is not stand_in.ILogger:  # its `log` is ours to write
            mine = list(inspect.signature(value).parameters)[1:]
            assert mine in signatures(theirs), (name, mine, signatures(theirs))  # one of its overloads


def test_settings_of_a_config_are_properties_of_the_library_s() -> None:
    for name in vars(stand_in.IRuntimeConfig()):
        if not name.startswith("_"):
            assert isinstance(inspect.getattr_static(trt.IRuntimeConfig, name), property), name
    assert isinstance(inspect.getattr_static(trt.Runtime, "defer_weights_loading"), property)
    assert isinstance(inspect.getattr_static(trt.ICudaEngine, "weight_streaming_budget_v2"), property)


def test_the_real_library_names_what_is_no_engine() -> None:
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    validity, found = runtime.get_engine_validity(b"\0" * int(runtime.engine_header_size))
    assert validity == trt.EngineValidity.INVALID
    assert found & int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)


def test_the_real_library_takes_our_logger() -> None:
    from pocketxl.engine.runners.tensorrt_library import error_log

    log = error_log(trt)
    runtime = trt.Runtime(log)
    assert runtime.deserialize_cuda_engine(b"no engine at all, and long enough for a header" * 4) is None
    assert log.summary() != "it does not say why"
    log.forget()
    assert log.summary() == "it does not say why"
