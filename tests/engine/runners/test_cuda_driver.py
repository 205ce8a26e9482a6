"""The driver's calls as its reference has them, and each failure in a sentence with the fix."""

import ctypes
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError
from pocketxl.engine.runners.cuda_driver import ADVICE, CudaDriver

from ...fixtures.cuda_library import SIGNATURES, CudaLibrary


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> CudaLibrary:
    library = CudaLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_every_call_is_made_as_the_reference_says(library: CudaLibrary) -> None:
    driver = CudaDriver()
    assert driver.stream == 77
    assert driver.device_name() == "NVIDIA GeForce RTX 4060"
    assert driver.compute_capability() == (8, 9)
    assert driver.multiprocessors() == 24
    assert driver.cuda_version() == (12, 9)
    there, here = driver.allocate(24), driver.pin(24)
    free, total = driver.memory()
    assert (total - free, total) == (24, library.host.total)
    sent, back = np.arange(6, dtype=np.float32), np.zeros(6, np.float32)
    driver.upload(there, sent)
    driver.download(back, there)
    driver.synchronize()
    np.testing.assert_array_equal(back, sent)
    other = driver.allocate(24)
    driver.copy(other, there, 24)
    driver.download(back, other)
    np.testing.assert_array_equal(back, sent)
    driver.copy_pitched(other, 4, there, 4, width=4, height=6)
    driver.clear_pitched(other, 4, width=4, height=6)
    driver.free(other)
    use_kernels(driver, library)
    driver.unpin(here)
    driver.free(there)
    driver.close()
    assert set(library.calls) == set(SIGNATURES)
    assert not library.host.memory_now
    assert not library.host.pinned


def use_kernels(driver: CudaDriver, library: CudaLibrary) -> None:
    module = driver.load_module(b"cubin")
    function = driver.function(module, "kernel", shared=50_000)
    numbers = [ctypes.c_uint64(1), ctypes.c_int32(2)]
    graph = driver.capture(lambda: driver.launch(function, (3, 4, 5), numbers, threads=128, shared=50_000))
    places = [ctypes.addressof(number) for number in numbers]
    assert library.launched == [(function, 3, 4, 5, 128, 1, 1, 50_000, places)]
    driver.replay(graph)
    driver.drop_graph(graph)
    driver.unload_module(module)


def test_shared_memory_is_asked_for_where_a_block_takes_more_than_it_has(library: CudaLibrary) -> None:
    driver = CudaDriver()
    module = driver.load_module(b"cubin")
    driver.function(module, "kernel", shared=48 << 10)
    assert "cuFuncSetAttribute" not in library.calls
    driver.function(module, "kernel", shared=(48 << 10) + 1)
    assert "cuFuncSetAttribute" in library.calls


def test_a_capture_that_fails_ends_and_says_why(library: CudaLibrary) -> None:
    driver = CudaDriver()
    library.fails["cuLaunchKernel"] = 2
    with pytest.raises(MemoryBudgetError, match="cuLaunchKernel"):
        driver.capture(lambda: driver.launch(1, (1, 1, 1), [], threads=32, shared=0))
    assert library.calls[-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]
    library.fails = {"cuGraphInstantiateWithFlags": 2}
    with pytest.raises(MemoryBudgetError, match="cuGraphInstantiate"):
        driver.capture(lambda: None)
    assert library.calls[-2:] == ["cuGraphInstantiateWithFlags", "cuGraphDestroy"]
    library.fails = {"cuGraphUpload": 2}
    with pytest.raises(MemoryBudgetError, match="cuGraphUpload"):
        driver.capture(lambda: None)
    assert {"cuGraphExecDestroy", "cuGraphDestroy"} <= set(library.calls[library.calls.index("cuGraphUpload") :])


def test_without_a_driver_it_is_named_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(IncompatibleError, match=r"need one and its driver.*install the driver.*--target cpu"):
        CudaDriver()


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ("cuInit", 100, r"cuInit with error 100 \(no CUDA-capable device is detected\): the driver sees no NVIDIA GPU"),
        ("cuInit", 35, "too old; update it"),
        ("cuInit", 803, "start the machine again"),
        ("cuInit", 999, "start the machine again"),
        ("cuInit", 34, "is a stub"),
        ("cuDevicePrimaryCtxRetain", 46, "another process has the GPU"),
        ("cuInit", 12345, r"error 12345 \(unknown error\): start the program again"),
    ],
)
def test_a_driver_that_does_not_start_is_explained(library: CudaLibrary, call: str, status: int, says: str) -> None:
    library.fails[call] = status
    with pytest.raises(IncompatibleError, match=says):
        CudaDriver()


def test_every_advice_is_a_sentence_s_end() -> None:
    for advice in ADVICE.values():
        assert advice[0].islower()
        assert not advice.endswith(".")


def test_a_full_gpu_is_a_memory_error_with_what_helps(library: CudaLibrary) -> None:
    driver = CudaDriver()
    library.fails["cuMemAlloc_v2"] = 2
    with pytest.raises(MemoryBudgetError, match=r"out of memory.*--budget.*smaller picture"):
        driver.allocate(1)
    library.fails["cuStreamSynchronize"] = 700
    with pytest.raises(IncompatibleError, match="state is lost; start the program again"):
        driver.synchronize()


def test_an_old_driver_without_a_call_is_told_to_be_updated(library: CudaLibrary) -> None:
    library.lacks.add("cuMemHostAlloc")
    with pytest.raises(IncompatibleError, match="has no cuMemHostAlloc, so it is too old; update it"):
        CudaDriver().pin(1)


def test_handles_are_as_wide_as_pointers() -> None:
    """A context or stream handed over as a plain int would be cut to 32 bits by ctypes."""
    assert ctypes.sizeof(ctypes.c_void_p) == ctypes.sizeof(ctypes.c_size_t) == 8


def test_pieces_are_copied_and_cleared_by_their_pitch(library: CudaLibrary) -> None:
    driver = CudaDriver()
    source = np.arange(12, dtype=np.uint8).reshape(3, 4)
    there, other = driver.allocate(12), driver.allocate(15)
    driver.upload(there, source)
    driver.upload(other, np.full(15, 9, np.uint8))
    driver.copy_pitched(other + 1, 5, there + 2, 4, width=2, height=3)
    driver.clear_pitched(other, 5, width=1, height=2)
    found = np.empty((3, 5), np.uint8)
    driver.download(found, other)
    assert found.tolist() == [[0, 2, 3, 9, 9], [0, 6, 7, 9, 9], [9, 10, 11, 9, 9]]
