"""A product of 8-bit numbers with a scale for each output channel in `DequantizeLinear`: what no lowering may write."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from pocketxl.engine.compiled.program import Compiled
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.export.targets.rtx.builder import Order, build_engine


def trap(folder: Path, numbers: np.ndarray) -> Compiled:
    """The compiled product `trap` of rounded inputs with these numbers `[in, out]`."""
    width, out = numbers.shape
    x = ir.Value(name="x", shape=ir.Shape(("rows", width)), type=ir.TensorType(ir.DataType.FLOAT16))
    tensors: dict[str, np.ndarray] = {
        "step": np.array(0.02, np.float16),
        "zero": np.array(0, numbers.dtype),
        "w": numbers,
        "scales": np.random.default_rng(0).uniform(0.01, 0.02, (out,)).astype(np.float16),
    }
    values = {
        name: ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.Tensor(array, name=name),
        )
        for name, array in tensors.items()
    }
    edges = [values["step"], values["zero"]]
    quantize = ir.node("QuantizeLinear", [x, *edges])
    rounded = ir.node("DequantizeLinear", [quantize.outputs[0], *edges])
    weight = ir.node("DequantizeLinear", [values["w"], values["scales"]], attributes={"axis": 1})
    product = ir.node("MatMul", [rounded.outputs[0], weight.outputs[0]], name="trap")
    product.outputs[0].name, product.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT16)
    graph = ir.Graph(
        [x],
        product.outputs,
        nodes=[quantize, rounded, weight, product],
        initializers=list(values.values()),
        opset_imports={"": 23},
        name="main",
    )
    ir.save(ir.Model(graph, ir_version=11), folder / "model.onnx")
    order = Order(
        component="trap",
        onnx=folder / "model.onnx",
        profiles={"x": ((1, width), (64, width), (64, width))},
        architectures=("sm89",),
        engine=folder / "model.engine",
    )
    build_engine(order)
    compiled = read_compiled(order.engine)
    assert compiled is not None
    return compiled
