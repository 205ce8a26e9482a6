"""Channels last is another order of the same numbers: each segment gives what it gave, to the bit."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from pocketxl.engine.bands.program import LAST
from pocketxl.engine.bands.sizes import band_shapes
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.export.bands.channels_last import channels_last, quantize_early
from pocketxl.export.bands.write import cut_graph
from pocketxl.export.graph.master import attach, export_master

from ...fixtures.networks import VaePair, vae_pair
from ...fixtures.onnx_run import StateDict
from ...tolerances import BANDS_RELATIVE

SIDE = 6


@pytest.fixture(scope="module")
def pair() -> VaePair:
    torch.manual_seed(5)
    return vae_pair()


def run(model: ir.Model, path: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ir.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def turned(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(LAST)) if array.ndim == 4 else array


def test_every_segment_of_a_decoder_gives_what_it_gave(pair: VaePair, tmp_path: Path) -> None:
    model = export_master("vae_decoder", lambda: VaeDecoder(pair.architecture), pair.architecture.decoder())
    attach(model, StateDict(pair.ours.state_dict()))
    program, cuts = cut_graph(model.graph)
    random = np.random.default_rng(0)
    for cut in cuts:
        shapes = band_shapes(program, cut.segment, SIDE, SIDE)
        given = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        before = run(cut.model, tmp_path / "before.onnx", given)
        channels_last(cut.model.graph)
        after = run(cut.model, tmp_path / "after.onnx", {name: turned(array) for name, array in given.items()})
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_allclose(after[name], turned(array), rtol=BANDS_RELATIVE, atol=BANDS_RELATIVE)


def small(nodes: list[ir.Node], inputs: list[ir.Value], output: ir.Value, **constants: np.ndarray) -> ir.Model:
    """A graph that takes and gives pictures of three channels."""
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 3, "rows", "columns"])
    tensors = [ir.Tensor(x, name=name) for name, x in constants.items()]
    stored = [ir.Value(name=t.name, type=ir.TensorType(t.dtype), shape=t.shape, const_value=t) for t in tensors]
    by_name = {value.name: value for value in stored}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in by_name:
                node.replace_input_with(index, by_name[value.name])
    graph = ir.Graph(inputs, [output], nodes=nodes, initializers=stored, opset_imports={"": 23}, name="small")
    return ir.Model(graph, ir_version=11)


def picture(name: str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, "rows", "columns"]))


def test_a_number_for_each_channel_stays_with_its_channel(tmp_path: Path) -> None:
    x, gain = picture("x"), ir.Value(name="gain")
    node = ir.node("Mul", [x, gain], name="scale")
    node.outputs[0].name = "y"
    model = small([node], [x], node.outputs[0], gain=np.array([1, 2, 3], np.float32).reshape(3, 1, 1))
    channels_last(model.graph)
    given = np.random.default_rng(1).standard_normal((1, 3, 2, 5), dtype=np.float32)
    expected = given * np.array([1, 2, 3], np.float32).reshape(3, 1, 1)
    np.testing.assert_array_equal(run(model, tmp_path / "m.onnx", {"x": turned(given)})["y"], turned(expected))


def test_a_number_for_each_column_is_refused() -> None:
    x, gain = picture("x"), ir.Value(name="gain")
    node = ir.node("Mul", [x, gain], name="scale")
    node.outputs[0].name = "y"
    model = small([node], [x], node.outputs[0], gain=np.arange(4, dtype=np.float32))
    with pytest.raises(ValueError, match="none of channels"):
        channels_last(model.graph)


def test_what_is_doubled_is_rounded_before_if_neighbours_are_copied_and_else_behind(tmp_path: Path) -> None:
    for mode in ("nearest", "linear"):
        x = picture("x")
        scales = ir.Value(name="scales")
        grown = ir.node("Resize", [x, None, scales], attributes={"mode": mode}, name="grow")
        step, zero = ir.Value(name="step"), ir.Value(name="zero")
        rounded = ir.node("QuantizeLinear", [grown.outputs[0], step, zero], name="round")
        back = ir.node("DequantizeLinear", [rounded.outputs[0], step, zero], name="back")
        grown.outputs[0].name, rounded.outputs[0].name, back.outputs[0].name = "grown", "rounded", "y"
        model = small(
            [grown, rounded, back], [x], back.outputs[0],
            scales=np.array([1, 1, 2, 2], np.float32), step=np.array(0.1, np.float32), zero=np.array(0, np.int8),
        )  # fmt: skip
        given = {"x": np.random.default_rng(1).standard_normal((1, 3, 2, 5), dtype=np.float32)}
        before = run(model, tmp_path / "before.onnx", given)["y"]
        quantize_early(model.graph)
        assert [node.op_type for node in model.graph].index("Resize") == (1 if mode == "nearest" else 0)
        np.testing.assert_array_equal(run(model, tmp_path / "after.onnx", given)["y"], before)
