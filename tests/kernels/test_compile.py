"""Ahead of time, without a GPU: every kernel that SDXL needs, for every architecture, and the folder of binaries."""

import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.binaries import Result, write_folder
from pocketxl.kernels.compile import Binary, CompileError, compile_variant, faults, unusable
from pocketxl.kernels.launch import Variant
from pocketxl.kernels.linear.plan import plan_linear_w8a8

# Kernels are compiled in processes of their own: here they are defined for the interpreter.
COMPILING = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
VARIANT = plan_linear_w8a8(m=64, n=64, k=64, arch=architecture(86)).variants[0]
GOOD = Binary(
    variant=VARIANT,
    arch=architecture(86),
    entry="linear_w8a8_kernel",
    cubin=b"\x7fELF",
    ptx="mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%r1}",
    shared=1024,
    registers=64,
    spilled=0,
    scratch=0,
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pocketxl.kernels", *arguments], capture_output=True, text=True, env=COMPILING
    )


@pytest.mark.parametrize("sm", sorted(GPU_ARCHITECTURES))
def test_every_shipped_kernel_fits_its_architecture(sm: int) -> None:
    done = command("compile", "--sm", str(sm), "--json", "--jobs", "1")
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [kernel for kernel in kernels if kernel["faults"]] or done.stderr[-2000:]
    assert {kernel["kernel"] for kernel in kernels} >= {
        "linear.linear_w8a8_kernel", "linear.geglu_linear_w8a8_kernel", "conv.conv_w8a8_kernel",
        "attention.attention_kernel", "attention.attention_int8_kernel", "weight_only.linear_w4_kernel",
        "four_bits.linear_w4a8_kernel",
    }  # fmt: skip
    for kernel in kernels:
        assert not kernel["faults"]
        assert kernel["shared"] <= architecture(sm).shared_memory
        assert 0 < kernel["registers"] <= 255
    assert {kernel["instruction"] for kernel in kernels} >= {None, "s8", "f16"}


def test_turing_is_sent_to_the_tensorrt_target_before_anything_is_compiled() -> None:
    done = command("compile", "--sm", "89", "75")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no kernels for sm_75" in done.stderr
    assert "rtx-sm75" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("--jobs", "0"), 2, "0 is not allowed: give 1 or more"),
        (("--jobs", "x"), 2, "x is not allowed: give 1 or more"),
        (("-o", "pyproject.toml"), 5, "cannot write"),
        (("--op", "linear_w8a8", "softmax"), 2, "no op softmax; there are"),
    ],
)
def test_a_wrong_argument_is_one_line_before_anything_is_compiled(
    arguments: tuple[str, ...], status: int, reason: str
) -> None:
    done = command("compile", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_op_is_refused_with_those_there_are() -> None:
    done = command("compile", "--op", "softmax")
    assert done.returncode == 2
    assert "softmax" in done.stderr
    assert "linear_w8a8" in done.stderr


def test_the_folder_holds_what_a_driver_needs(tmp_path: Path) -> None:
    done = command("compile", "--sm", "86", "--op", "quantize_per_token", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "sm_86"
    assert [path.name for path in tmp_path.iterdir()] == ["sm_86"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["sm"]) == (1, 86)
    assert {entry["file"] for entry in manifest["binaries"].values()} | {"manifest.json"} == {
        path.name for path in folder.iterdir()
    }
    for name, entry in manifest["binaries"].items():
        cubin = (folder / entry["file"]).read_bytes()
        assert entry["file"] == f"{name}.cubin"
        assert cubin.startswith(b"\x7fELF")
        assert entry["entry"].encode() in cubin
        assert hashlib.sha256(cubin).hexdigest() == entry["sha256"]
        assert b"kernel.py" not in cubin, "nobody's folders are in what is shipped"
        assert all(kind.startswith("*") or kind in ("i32", "fp32") for _, kind in entry["arguments"])


ASSEMBLED = """
import pathlib, subprocess, sys
from triton import knobs
from pocketxl.kernels.activate.plan import plan_activate
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.compile import compile_variant
from pocketxl.kernels.linear.plan import plan_linear_w8a8

arch, text = architecture(80), pathlib.Path(sys.argv[1]) / "kernel.ptx"
for plan in (plan_activate(m=77, n=64, activation="gelu", arch=arch), plan_linear_w8a8(m=64, n=64, k=64, arch=arch)):
    ptx = compile_variant(plan.variants[0], arch).ptx
    assert ".py" not in ptx, "nobody's folders are in what is shipped"
    text.write_text(ptx)
    command = [knobs.nvidia.ptxas_blackwell.path, "-arch=sm_100", str(text), "-o", str(text.with_suffix(".cubin"))]
    subprocess.run(command, check=True)
"""


def test_the_text_of_kernels_for_ampere_is_what_later_gpus_compile(tmp_path: Path) -> None:
    """By NVIDIA's assembler, which their drivers have too."""
    done = subprocess.run(
        [sys.executable, "-c", ASSEMBLED, str(tmp_path)], capture_output=True, text=True, env=COMPILING
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernel.cubin").read_bytes().startswith(b"\x7fELF")


@pytest.mark.skipif(os.name == "nt", reason="signals a process group")
def test_an_interrupt_is_one_line_and_leaves_no_folder(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pocketxl.kernels", "compile", "--sm", "86", "--jobs", "2", "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=COMPILING, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job may ignore it
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith("sm_86")  # at work, and far from done
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "interrupted; nothing half-written was left\n"
    assert not (tmp_path / "out").exists()


def test_launches_vary_in_what_their_kernels_are_not_specialised_to() -> None:
    """Else the binary compiled ahead of time is another than the one that torch would run."""
    script = inspect.cleandoc("""
        from pocketxl.kernels.architecture import architecture
        from pocketxl.kernels.execute import kernel_function
        from pocketxl.kernels.sdxl import all_launch_plans
        for plan in all_launch_plans(architecture(89)):
            for launch in plan.launches:
                function = kernel_function(launch.kernel)
                listed = {p.name for p in function.params if p.do_not_specialize}
                assert launch.varying == listed, (launch.kernel, launch.varying, listed)
                order = [name for name in function.arg_names if name not in launch.constants]
                assert list(launch.arguments) == order, (launch.kernel, order)
    """)
    subprocess.run([sys.executable, "-c", script], check=True, env=COMPILING)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shared": 101_377}, "101377 bytes of shared memory, sm_86 has 101376"),
        ({"spilled": 8}, "spills 8 bytes"),
        ({"scratch": 128}, "128 bytes of global scratch"),
        ({"ptx": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"}, "no matrix instruction on s8"),
    ],
)
def test_faults(change: dict[str, object], reason: str) -> None:
    assert faults(GOOD) == []
    assert len(faults(replace(GOOD, **change))) == 1  # type: ignore[arg-type]
    assert reason in faults(replace(GOOD, **change))[0]  # type: ignore[arg-type]


def test_hopper_must_use_its_own_matrix_instruction() -> None:
    hopper = replace(GOOD, arch=architecture(90))
    assert faults(hopper) == ["has no matrix instruction on s8"]
    wgmma = "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {%r1}"
    assert faults(replace(hopper, ptx=wgmma)) == []


def test_a_kernel_with_a_fault_is_not_written_and_the_last_folder_stays(tmp_path: Path) -> None:
    good = Result(variant=VARIANT, binary=GOOD, faults=())
    bad = Result(variant=VARIANT, binary=GOOD, faults=("spills 8 bytes a thread",))
    folder = write_folder([good], architecture(86), tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CompileError, match=r"1 of 2 kernels for sm_86 may not ship.*spills 8"):
        write_folder([good, bad], architecture(86), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="this is about the interpreter")
def test_compiling_under_the_interpreter_says_what_to_unset() -> None:
    with pytest.raises(CompileError, match="unset"):
        compile_variant(VARIANT, architecture(86))


def test_a_variant_is_named_after_its_kernel_and_contents() -> None:
    assert VARIANT.name.startswith("linear_w8a8_kernel-")
    assert isinstance(VARIANT, Variant)
    assert replace(VARIANT, num_warps=2).name != VARIANT.name


def test_what_only_costs_time_is_a_fault_but_runs() -> None:
    assert not faults(GOOD)
    for binary in (replace(GOOD, spilled=8), replace(GOOD, ptx="")):
        assert faults(binary)
        assert not unusable(binary)
    for binary in (replace(GOOD, shared=GOOD.arch.shared_memory + 1), replace(GOOD, scratch=1)):
        assert faults(binary) == unusable(binary) != []
