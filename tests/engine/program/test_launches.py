"""The flat list of launches: which binary, which arguments, and which GPUs it is for."""

import ctypes
import zlib
from dataclasses import replace

import pytest

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.program.calls import resolve
from pocketxl.engine.program.launches import PORTABLE, choose_binaries, launch_list, ptx_of
from pocketxl.engine.program.program import BinarySpec, Program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.kernels.architecture import architecture

from ...fixtures.small_programs import small_program, variants

ARCH = architecture(89)
PROGRAM, _ = small_program()
SIZES = Sizes(batch=1, height=4, width=4)
CALLS = resolve(PROGRAM, SIZES, ARCH).calls
BINARY = BinarySpec(offset=0, size=1, entry="kernel", shared=0, threads=128, hidden=2)
BINARIES = {variant.name: BINARY for variant in variants(PROGRAM, [SIZES], ARCH)}
NAMES = [*PROGRAM.weights, *resolve(PROGRAM, SIZES, ARCH).values]
ADDRESSES = {name: 4096 * (i + 1) for i, name in enumerate(NAMES)}
SCRATCH = [{name: 256 * (i + 1) for i, name in enumerate(call.plan.scratch)} for call in CALLS]
LAUNCHES = list(launch_list(CALLS, ADDRESSES, SCRATCH, BINARIES))


def test_there_is_one_for_each_launch_of_each_plan_in_order() -> None:
    wanted = [
        (plan.variant(launch).name, i) for i, c in enumerate(CALLS) for plan in [c.plan] for launch in plan.launches
    ]
    assert [(launch.binary, launch.call) for launch in LAUNCHES] == wanted


def test_arguments_are_in_the_kernel_s_order_and_what_is_compiled_in_is_left_out() -> None:
    (linear,) = (launch for launch in LAUNCHES if launch.call == 6)  # no residual
    # x, x_scale, weight, weight_scale, bias, out, sums
    given = ("q.2", "s.2", "qkv.weight", "qkv.scale", "qkv.bias", "qkv")
    pointers = [*(ADDRESSES[name] for name in given), SCRATCH[6]["sums"]]
    tiles = CALLS[6].plan.launches[0].grid[0]
    assert [p.value for p in linear.parameters] == [*pointers, 16, 192, 64, tiles, 0, 0, 0]
    assert [type(p) for p in linear.parameters] == [ctypes.c_uint64] * 7 + [ctypes.c_int32] * 5 + [ctypes.c_uint64] * 2
    assert linear.grid == CALLS[6].plan.launches[0].grid


def test_a_slice_of_columns_begins_at_its_first_element() -> None:
    (attention,) = (launch for launch in LAUNCHES if launch.call == 7)
    assert [p.value - ADDRESSES["qkv"] for p in attention.parameters[:3]] == [0, 128, 256]  # 64 float16 each


def test_floats_are_floats_and_scratch_is_the_call_s_own() -> None:
    statistics, merge, _ = (launch for launch in LAUNCHES if launch.call == 1)
    assert [type(p) for p in merge.parameters].count(ctypes.c_float) == 1
    assert statistics.parameters[1].value == SCRATCH[1]["mean"]


def test_hidden_parameters_are_as_many_as_the_binary_has() -> None:
    none = {name: replace(BINARY, hidden=0) for name in BINARIES}
    for few, many in zip(launch_list(CALLS, ADDRESSES, SCRATCH, none), LAUNCHES, strict=True):
        assert len(many.parameters) == len(few.parameters) + 2
        assert [p.value for p in many.parameters[-2:]] == [0, 0]


def test_a_kernel_that_the_engine_lacks_is_told_with_its_layer() -> None:
    lacking = dict(BINARIES)
    del lacking[LAUNCHES[-1].binary]
    with pytest.raises(IncompatibleError, match=r"layer\.23 needs the kernel conv_w8a8_kernel-.*build it again"):
        list(launch_list(CALLS, ADDRESSES, SCRATCH, lacking))


def with_binaries(*capabilities: str) -> Program:
    return replace(PROGRAM, binaries={c: {c: BINARY} for c in capabilities})


@pytest.mark.parametrize(
    ("there", "gpu", "chosen"),
    [
        (("80", "86", "89", "90", "120"), (8, 9), "89"),
        (("80", "86", "89", "90", "120"), (8, 7), "86"),
        (("80", "86", "89", "90", "120"), (12, 1), "120"),
        (("80",), (8, 9), "80"),
        (("80", "90"), (9, 0), "90"),
    ],
)
def test_a_gpu_gets_its_own_kernels_or_the_nearest_that_it_runs(
    there: tuple[str, ...], gpu: tuple[int, int], chosen: str
) -> None:
    arch, binaries = choose_binaries(with_binaries(*there), gpu, "a card")
    assert arch.sm == int(chosen)
    assert set(binaries) == {chosen}


@pytest.mark.parametrize("gpu", [(7, 5), (8, 0), (10, 0), (9, 0)])
def test_a_gpu_without_kernels_is_told_which_there_are(gpu: tuple[int, int]) -> None:
    with pytest.raises(
        IncompatibleError, match=rf"capability 8\.6, 12\.0, and this Card has {gpu[0]}\.{gpu[1]}; build"
    ):
        choose_binaries(with_binaries("86", "120"), gpu, "Card")
    with pytest.raises(IncompatibleError, match="capability none"):
        choose_binaries(PROGRAM, gpu, "Card")


def portable(*capabilities: str) -> Program:
    return replace(with_binaries(*capabilities), portable={"ptx": BINARY})


@pytest.mark.parametrize("gpu", [(10, 0), (10, 3), (13, 0), (8, 0)])
def test_a_later_gpu_than_there_are_kernels_for_gets_those_that_its_driver_compiles(gpu: tuple[int, int]) -> None:
    program = portable("86", "90", "120")
    arch, binaries = choose_binaries(program, gpu, "Card")
    assert arch.sm == PORTABLE
    assert binaries is program.portable


def test_portable_kernels_are_the_last_choice_and_nothing_for_an_earlier_gpu() -> None:
    _, binaries = choose_binaries(portable("80", "90"), (9, 0), "Card")
    assert set(binaries) == {"90"}
    with pytest.raises(IncompatibleError, match=r"this Card has 7\.5"):
        choose_binaries(portable("80"), (7, 5), "Card")


def test_a_portable_kernel_is_text_or_damaged() -> None:
    text = b".version 8.7\n" * 1000
    content = zlib.compress(text)
    assert ptx_of(content, "name") == text
    for wrong in (b"", b"\x7fELF", content[:-5], zlib.compress(bytes(1 << 25))):
        with pytest.raises(IntegrityError, match="portable kernel name is damaged"):
            ptx_of(wrong, "name")


def test_kernels_for_an_architecture_that_this_release_does_not_know() -> None:
    with pytest.raises(IncompatibleError, match=r"no kernels for sm_130.*install the pocketxl"):
        choose_binaries(with_binaries("130"), (13, 0), "Card")
