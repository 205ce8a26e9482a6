"""Inputs after rounding and back, held to the operators and kernels that will do it."""

from functools import cache

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pocketxl.export.quantize.formats import (
    FP8_TENSOR,
    FP8_TOKEN,
    W4A8,
    W8A8_DYNAMIC,
    W8A8_SIGNED,
    W8A8_STATIC,
    W8A8_TOKEN,
    Activation,
    Format,
)
from pocketxl.export.quantize.input_rounding import round_inputs
from pocketxl.kernels.quantize.reference import quantize_per_token_ref

Floats = NDArray[np.float32]


def how(format: Format) -> Activation:
    assert format.activation is not None
    return format.activation


def normal(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def dynamic_quantize_linear(x: Floats) -> Floats:
    """ONNX Runtime's own."""
    value = ir.Value(name="x", shape=ir.Shape(x.shape), type=ir.TensorType(ir.DataType.FLOAT))
    quantize = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
    back = ir.node("DequantizeLinear", list(quantize.outputs))
    back.outputs[0].name = "y"
    graph = ir.Graph([value], [back.outputs[0]], nodes=[quantize, back], opset_imports={"": 20}, name="g")
    session = onnxruntime.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString())
    result: Floats = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("shift", [-9.0, 0.0, 0.5, 9.0])
def test_dynamic_per_tensor_is_onnx_s_dynamic_quantize_linear(shift: float) -> None:
    x = normal(7, 33) + np.float32(shift)
    np.testing.assert_array_equal(round_inputs(x, how(W8A8_DYNAMIC)), dynamic_quantize_linear(x))


def test_signed_ones_are_onnx_s_quantize_linear() -> None:
    """Also what lies outside: 128 steps below zero, 127 above."""
    x = normal(7, 33)
    step = np.float32(min(-x.min(), x.max()) / 150)
    value = ir.Value(name="x", shape=ir.Shape(x.shape), type=ir.TensorType(ir.DataType.FLOAT))
    edges = [ir.tensor(step, name="step"), ir.tensor(np.int8(0), name="zero")]
    values = [ir.Value(name=t.name, shape=ir.Shape(()), type=ir.TensorType(t.dtype), const_value=t) for t in edges]
    quantize = ir.node("QuantizeLinear", [value, *values])
    back = ir.node("DequantizeLinear", [quantize.outputs[0], *values])
    back.outputs[0].name = "y"
    graph = ir.Graph(
        [value], back.outputs, nodes=[quantize, back], initializers=values, opset_imports={"": 20}, name="g"
    )
    session = onnxruntime.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString())
    expected = session.run(None, {"x": x})[0]
    assert (expected.min(), expected.max()) == (-128 * step, 127 * step)
    np.testing.assert_array_equal(round_inputs(x, how(W8A8_SIGNED), scale=float(step)), expected)


@pytest.mark.parametrize(("format", "dtype"), [(W8A8_TOKEN, torch.int8), (FP8_TOKEN, torch.float8_e4m3fn)])
def test_per_token_is_the_kernels(format: Format, dtype: torch.dtype) -> None:
    x = normal(7, 33) * np.geomspace(1e-3, 1e3, 7, dtype=np.float32)[:, None]
    x[3] = 0
    data, scale = quantize_per_token_ref(torch.from_numpy(x), dtype)
    np.testing.assert_allclose(
        round_inputs(x, how(format)), (data.float() * scale[:, None]).numpy(), rtol=1e-6, atol=1e-30
    )


def test_per_group_is_per_token_of_each_group_and_the_last_may_be_shorter() -> None:
    x = normal(5, 150)
    parts = [round_inputs(np.ascontiguousarray(x[:, at : at + 64]), how(W8A8_TOKEN)) for at in (0, 64, 128)]
    np.testing.assert_array_equal(round_inputs(x, how(W4A8), group=64), np.concatenate(parts, 1))


def test_static_channels_share_a_zero_point_and_clip_at_the_ends() -> None:
    x = np.array([[-1.0, 0.26, 100.0], [0.0, -50.0, 3.0]], np.float32)
    scale = np.array([0.1, 0.5, 1.0], np.float32)
    kept = round_inputs(x, how(W8A8_STATIC), scale=scale, zero=20)
    np.testing.assert_allclose(kept, [[-1.0, 0.5, 100.0], [0.0, -10.0, 3.0]], rtol=1e-6)


@given(
    rows=arrays(np.float16, (2, 16), elements=st.floats(-65504, 65504, width=16)),
    exponent=st.integers(-14, 6),  # beyond it the ends of the range are beyond half's
)
def test_static_e4m3_is_what_onnx_runtime_and_ml_dtypes_make_of_it(rows: np.ndarray, exponent: int) -> None:
    """Of halves in steps that are powers of two, as `rtx` has them; what lies outside becomes the end of the range."""
    step = 2.0**exponent
    kept = round_inputs(rows.astype(np.float32), how(FP8_TENSOR), scale=step)
    within = (rows.astype(np.float32) / np.float32(step)).clip(-448, 448)
    assert np.array_equal(kept, within.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(step))
    assert np.array_equal(
        kept.astype(np.float16), _onnx_e4m3().run(None, {"x": rows, "step": np.array(step, np.float16)})[0]
    )


@cache
def _onnx_e4m3() -> onnxruntime.InferenceSession:
    half, float8 = TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN
    zero = helper.make_tensor("zero", float8, [], [0.0])
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["numbers"]),
            helper.make_node("DequantizeLinear", ["numbers", "step", "zero"], ["y"]),
        ],
        "main",
        [helper.make_tensor_value_info("x", half, [2, 16]), helper.make_tensor_value_info("step", half, [])],
        [helper.make_tensor_value_info("y", half, [2, 16])],
        [zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_static_e4m3_saturates_at_its_amax() -> None:
    x = np.array([[3.0, -8.0, 0.1]], np.float32)
    kept = round_inputs(x, how(FP8_TENSOR), amax=4.0)
    scale = torch.tensor(4.0 / 448)
    theirs = torch.tensor([[3.0, -4.0, 0.1]]).div(scale).to(torch.float8_e4m3fn).float().mul(scale).numpy()
    np.testing.assert_array_equal(kept, theirs)
    assert kept[0, 1] == -4.0


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from([W8A8_DYNAMIC, W8A8_TOKEN, W4A8, FP8_TOKEN]),
    rows=st.integers(1, 4),
    width=st.integers(1, 140),
    power=st.integers(-140, 15),
)
@example(format=W8A8_DYNAMIC, rows=1, width=1, power=-118)
def test_nothing_that_is_finite_breaks_it(format: Format, rows: int, width: int, power: int) -> None:
    x = (normal(rows, width) * np.float64(2.0) ** power).clip(-65504, 65504).astype(np.float32)
    kept = round_inputs(x, how(format), group=64)
    assert np.isfinite(kept).all()
    # A step is 1/127 of the largest number (e4m3: 1/16 of itself) at most; a range from both ends is never wider.
    assert np.abs(kept - x).max() <= np.abs(x).max() / (15.9 if format is FP8_TOKEN else 127) + 1e-30


def test_the_caller_s_inputs_are_not_written_to() -> None:
    x = normal(4, 128)
    before = x.copy()
    for format in (W8A8_DYNAMIC, W8A8_TOKEN, W4A8, FP8_TOKEN):
        round_inputs(x, how(format), group=64)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("activation", "missing"),
    [
        (how(FP8_TENSOR), "calibrated amax"),
        (how(W8A8_STATIC), "calibrated scale and zero point"),
        (how(W4A8), "the size of a group"),
        (Activation(bits=4, range="dynamic"), "8 bits, not to 4"),
        (Activation(bits=8, range="dynamic", granularity="channel"), "dynamic range for every channel"),
    ],
)
def test_what_is_missing_is_named(activation: Activation, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        round_inputs(normal(2, 4), activation)
