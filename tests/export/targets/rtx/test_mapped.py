"""The builder's weights in memory maps: given to the parser where they lie, and let go of while it works."""

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pocketxl.export.targets.rtx import mapped as module
from pocketxl.export.targets.rtx.mapped import mapped

BIG = np.arange(1 << 22, dtype=np.float32)
SMALL = np.arange(4, dtype=np.float32)


class Parser:
    """What is asked of the library's; `refuses` one of the initializers."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.given: dict[str, tuple[int, int]] = {}
        self.parsed = 0

    def load_model_proto(self, model: bytes, path: str) -> bool:
        return model.startswith(b"\x08")

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        self.given[name] = (data, size)
        return name != self.refuses

    def parse_model_proto(self) -> bool:
        self.parsed += 1
        return True

    def content(self, name: str) -> np.ndarray:
        address, size = self.given[name]
        return np.frombuffer(ctypes.string_at(address, size), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two large initializers in a file beside it, and one in the model itself."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in (("a", BIG), ("b", -BIG))]
    graph = onnx.helper.make_graph([], "g", [], [], [*tensors, onnx.numpy_helper.from_array(SMALL, "small")])
    onnx.save(
        onnx.helper.make_model(graph), tmp_path / "m.onnx", save_as_external_data=True, location="m.data"
    )  # those of less than a kilobyte stay inside
    return tmp_path / "m.onnx"


def resident(address: int) -> int:
    """Bytes of the mapping at an address that are in this process's resident set."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        low, dash, rest = line.partition(" ")[0].partition("-")
        if dash and int(low, 16) <= address < int(rest, 16):
            return 1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])
    raise AssertionError(f"nothing is mapped at {address}")


def test_the_parser_gets_each_weight_where_it_lies_in_the_file(path: Path) -> None:
    parser = Parser()
    with mapped(parser, path) as read:
        assert read
        assert set(parser.given) == {"a", "b"}, "what is in the model is there already"
        np.testing.assert_array_equal(parser.content("a"), BIG)
        np.testing.assert_array_equal(parser.content("b"), -BIG)
    assert parser.parsed == 1


def test_pages_are_let_go_of_and_come_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.05)
    parser = Parser()
    with mapped(parser, path):
        address, _ = parser.given["a"]
        deadline = time.monotonic() + 30
        parser.content("a")
        while resident(address) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert resident(address) == 0
        np.testing.assert_array_equal(parser.content("a"), BIG)


@pytest.mark.parametrize("refuses", ["a", "b"])
def test_a_weight_that_is_not_taken_ends_it(refuses: str, path: Path) -> None:
    parser = Parser(refuses)
    with mapped(parser, path) as read:
        assert not read
    assert not parser.parsed


def test_what_is_no_model_is_left_to_the_parser_to_say(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no protobuf")
    parser: Any = Parser()
    with mapped(parser, tmp_path / "m.onnx") as read:
        assert not read


def test_a_file_of_weights_that_is_gone_is_an_error(path: Path) -> None:
    path.with_name("m.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.data"), mapped(Parser(), path):
        pass
