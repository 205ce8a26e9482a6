"""The builder in a process of its own.

TensorRT compiles a U-Net for minutes without looking up: Ctrl-C could only be heard afterwards. A process can be ended
at once, gives all its memory back, and if the system kills it for taking too much, that is an error and not the end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ....engine.errors import IncompatibleError, MemoryBudgetError, PocketXLError, StorageError
from ....engine.runners.ort_session import trim_heap
from ....engine.runners.tensorrt_library import TENSORRT_LIBRARIES
from .builder import Order, build_engine

_TELL_EVERY = 1.0
_KILLED = -9
_ERRORS: dict[str, type[PocketXLError]] = {kind.__name__: kind for kind in (IncompatibleError, StorageError)}


def build_aside(order: Order, tell: Callable[[str], None]) -> None:
    """`build_engine(order)` in another process; `tell` hears about every second how long it has been at it.

    Raises `IncompatibleError`, `StorageError` when the file cannot be written, and `MemoryBudgetError` when the system
    has killed the process. However this ends, the process is gone then.
    """
    trim_heap()  # what calibrating and rounding have left behind is not needed while another process needs much
    # Modules are found where this process finds them, and never in the current folder (-P).
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(  # noqa: S603 — this module, in this interpreter
        [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with suppress(BrokenPipeError):  # it ended at once; its exit status says more
            process.stdin.write(json.dumps(asdict(order), default=str) + "\n")
            process.stdin.flush()
        began = time.monotonic()
        while process.poll() is None:
            try:
                process.wait(_TELL_EVERY)
            except subprocess.TimeoutExpired:
                tell(f"compiling for {time.monotonic() - began:.0f} s")
        answer = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
    _raise(order, process.returncode, answer)


def _raise(order: Order, status: int, answer: str) -> None:
    """The error that the other process ended with, if it did."""
    if status == _KILLED:
        raise MemoryBudgetError(
            f"{order.component}: the system has killed TensorRT's builder, most likely for want of memory: it takes "
            "more than twice the weights' bytes; close other programs or build on a machine with more"
        )
    lines = answer.splitlines()
    if status or not lines:
        name = TENSORRT_LIBRARIES[order.library].name
        raise IncompatibleError(f"{order.component}: {name}'s builder crashed (exit status {status})")
    result = json.loads(lines[-1])
    if result["error"]:
        raise _ERRORS[result["error"]](result["message"])


def serve() -> None:
    """Take one order from standard input, and print how it went; ends when the process that asked is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the process that asked decides
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    result = {"error": "", "message": ""}
    try:
        build_engine(
            Order(
                component=order["component"],
                onnx=Path(order["onnx"]),
                engine=Path(order["engine"]),
                profiles=order["profiles"],
                architectures=tuple(order["architectures"]),
                library=order["library"],
            )
        )
    except IncompatibleError as error:
        result = {"error": "IncompatibleError", "message": str(error)}
    except OSError as error:
        message = (
            f"cannot write {error.filename or order['engine']}: {error.strerror or error}; "
            "free some space or choose another folder"
        )
        result = {"error": "StorageError", "message": message}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def end_with_parent() -> None:
    """Wait until standard input is closed, then end this process in the middle of whatever it does."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)
