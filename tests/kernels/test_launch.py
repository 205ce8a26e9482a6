import inspect
import subprocess
import sys

import pytest

from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.errors import KernelError, UnsupportedShapeError, require
from pocketxl.kernels.launch import Buffer, Launch, LaunchPlan, cdiv


def plan(**arguments: object) -> LaunchPlan:
    launch = Launch(
        kernel="linear.linear_w8a8_kernel",
        arguments={"x": "x", "bias": None, "M": 32, "N": 48, "eps": 0.5, **arguments},  # type: ignore[dict-item]
        constants={"BLOCK": 16},
        grid=(1, 1, 1),
        num_warps=4,
        num_stages=2,
        varying=frozenset({"M"}),
    )
    return LaunchPlan(
        op="op",
        inputs={"x": Buffer(shape=(32, 48), dtype="float16")},
        outputs={"y": Buffer(shape=(32,), dtype="float32")},
        launches=(launch,),
    )


def test_a_variant_is_what_is_compiled() -> None:
    variant = plan().variants[0]
    assert variant.types == (("x", "*fp16"), ("M", "i32"), ("N", "i32"), ("eps", "fp32"))
    assert variant.divisible == ("x", "N")  # M varies
    assert dict(variant.constants) == {"BLOCK": 16, "bias": None}


def test_what_varies_does_not_change_the_variant_and_all_else_does() -> None:
    assert plan().variants == plan(M=7).variants
    names = {plan(**change).variants[0].name for change in ({}, {"N": 7}, {"bias": "x"}, {"eps": 3})}
    assert len(names) == 4


def test_traffic_counts_inputs_and_outputs_once() -> None:
    assert plan().traffic == 32 * 48 * 2 + 32 * 4


@pytest.mark.parametrize("value", [-1, 2**31])
def test_an_integer_beyond_32_bits_is_refused(value: int) -> None:
    with pytest.raises(KernelError, match=f"N={value} does not fit"):
        _ = plan(N=value).variants


def test_constraints_name_the_op_the_shape_and_the_reason() -> None:
    require(True, "op", {}, "")
    with pytest.raises(UnsupportedShapeError, match="op cannot take k=3, m=2: too odd"):
        require(False, "op", {"k": 3, "m": 2}, "too odd")


def test_parts_cover_the_total() -> None:
    assert [cdiv(total, 4) for total in (0, 1, 4, 5)] == [0, 1, 1, 2]


@pytest.mark.parametrize("sm", [70, 75, 87, 100])
def test_an_unknown_architecture_is_refused_with_those_there_are(sm: int) -> None:
    with pytest.raises(KernelError, match=rf"no kernels for sm_{sm}.*sm_86 .*TensorRT"):
        architecture(sm)


def test_shared_memory_of_the_architectures() -> None:
    assert {sm: item.shared_memory for sm, item in GPU_ARCHITECTURES.items()} == {
        80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 120: 101_376,
    }  # fmt: skip


def test_plans_need_neither_torch_nor_triton() -> None:
    """A torch-free engine launches compiled binaries by the same descriptions."""
    script = inspect.cleandoc("""
        import sys
        from pocketxl.kernels import sdxl
        from pocketxl.kernels.architecture import architecture
        assert sdxl.all_launch_plans(architecture(89))
        assert not {"torch", "triton", "numpy"} & set(sys.modules), sorted(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", script], check=True)
