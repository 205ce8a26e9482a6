"""What a `PatchConv` stands for, against the sums themselves: every number exact, since all of them are integers."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from pocketxl.export.graph.layers import MICROSOFT, MICROSOFT_VERSION, add_initializer
from pocketxl.export.graph.patch_conv import Product, cornered, patch_conv, tapped
from pocketxl.export.graph.stand_ins import expand_all

IN, OUT, ZERO = 5, 3, 7


def answer(x: np.ndarray, weights: list[np.ndarray], bias: np.ndarray, folder: Path, **options: str) -> np.ndarray:
    """Of a graph with that one node. `weights`: matrices `[taps · in, columns]`; `options` of the session."""
    given = ir.Value(name="x", shape=ir.Shape(["n", IN, "h", "w"]), type=ir.TensorType(ir.DataType.UINT8))
    graph = ir.Graph([given], [], nodes=[], opset_imports={"": 23, MICROSOFT: MICROSOFT_VERSION}, name="one")

    def constant(name: str, numbers: np.ndarray) -> ir.Value:
        return add_initializer(graph, ir.Tensor(numbers, name=name))

    products = [
        Product(
            matrix=constant(f"matrix.{n}", weight.astype(np.int8)),
            scale=constant(f"scale.{n}", np.full(weight.shape[1], 0.5, np.float32)),
            bias=constant("bias", np.tile(bias, len(weights))),
        )
        for n, weight in enumerate(weights)
    ]
    one, zero = constant("one", np.array(1, np.float32)), constant("zero", np.array(ZERO, np.uint8))
    node = patch_conv(given, one, zero, products, channels=OUT, name="conv")
    graph.append(node)
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(node.outputs[0])
    expand_all(graph)
    assert {n.domain for n in graph} <= {"", MICROSOFT}
    ir.save(ir.Model(graph, ir_version=11), folder / "model.onnx")
    settings = onnxruntime.SessionOptions()
    for name, value in options.items():
        settings.add_session_config_entry(f"session.{name}", value)
    session = onnxruntime.InferenceSession(folder / "model.onnx", settings, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def numbers(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes `[2, in, rows, columns]`, a weight so small that four of it are bytes, and a bias."""
    draw = np.random.default_rng(rows * 10 + columns)
    x = draw.integers(0, 256, (2, IN, rows, columns)).astype(np.uint8)
    return x, draw.integers(-31, 32, (OUT, IN, 3, 3)).astype(np.float32), draw.integers(-9, 9, OUT).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (4, 3)])
def test_one_product_is_the_convolution(rows: int, columns: int, tmp_path: Path) -> None:
    x, weight, bias = numbers(rows, columns)
    exact = F.conv2d(torch.from_numpy(x).float() - ZERO, torch.from_numpy(weight), padding=1).numpy()
    found = answer(x, [tapped(weight.reshape(OUT, -1), 9)], bias, tmp_path)
    np.testing.assert_array_equal(found, exact * 0.5 + bias[:, None, None])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (4, 3)])
def test_two_products_are_a_doubling_and_the_convolution(rows: int, columns: int, tmp_path: Path) -> None:
    x, weight, bias = numbers(rows, columns)
    doubled = F.interpolate(torch.from_numpy(x).float() - ZERO, scale_factor=2, mode="nearest")
    exact = F.conv2d(doubled, torch.from_numpy(weight), padding=1).numpy()
    matrices = [tapped(cornered(weight, odd=odd).reshape(2 * OUT, -1), 4) for odd in (False, True)]
    found = answer(x, matrices, bias, tmp_path)
    np.testing.assert_array_equal(found, exact * 0.5 + bias[:, None, None])


def test_weights_that_are_made_unsigned_give_the_same(tmp_path: Path) -> None:
    """As the runner asks for where a processor adds products of bytes in 16 bits."""
    x, weight, bias = numbers(4, 3)
    for matrices in (
        [tapped(weight.reshape(OUT, -1), 9)],
        [tapped(cornered(weight, odd=odd).reshape(2 * OUT, -1), 4) for odd in (False, True)],
    ):
        unsigned = answer(x, matrices, bias, tmp_path, x64quantprecision="1")
        np.testing.assert_array_equal(unsigned, answer(x, matrices, bias, tmp_path))
