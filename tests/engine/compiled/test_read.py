"""Reading a program's text, and what is made of text that nobody knows: less is understood, and nothing is raised.

That the library writes such text is held by the tests of the `rtx` target.
"""

from pathlib import Path

import pytest

from pocketxl.engine.compiled.arena import arena_at
from pocketxl.engine.compiled.program import Compiled, Product, Region
from pocketxl.engine.compiled.read import read_compiled, read_program

# Of an engine that convolves: y = conv(x) for x of n rows; fields that nobody reads are left out.
TEXT = r"""header {
  version = 5
  region = { name=devmem_0 size=2048 alignment=128 instance=0 type=user place=accelerator unified=false }
  region = { name=devmem_1 size=256 alignment=128 instance=0 type=user place=accelerator unified=false }
  region = { name=host size=64 alignment=128 instance=0 type=user place=host unified=false }
  region = { name=consts size=99 alignment=128 instance=0 type=system place=accelerator unified=false constant=true }
  inputs={ "x.1" "{ForeignNode[a...b]}_in.1" }
  accelerators={sm86 sm89 }
}
descriptors {
  tensor={ alignment=1 dims={ "n.1" 4 } mem_prop=0 name="x.1" offset=0 rank0=0 region="" strides={ 4 1 } type=float }
  tensor={ alignment=1 dims={ "n.1" 16 } mem_prop=0 name="h" offset=0 rank0=0 region="devmem_0" strides={ 1 } type=half }
  tensor={ alignment=1 dims={ "2n.1" 8 } mem_prop=0 name="y" offset=0 rank0=0 region="devmem_0" strides={ 1 } type=float }
  tensor={ alignment=1 dims={ 100 } mem_prop=0 name="s" offset=128 rank0=0 region="devmem_1" strides={ 1 } type=int8 }
  tensor={ alignment=1 const_payload_size=18 dims={ 9 } name="w" offset=0 rank0=1 region=consts strides={ 1 } type=half }
  sub_tensor={ base="h" const_offset=4 dims={ "n.1" 8 } mem_prop=0 name="part^deref" offset=0 strides={ 16 1 } type=half }
}
main {
 label bb1:
  function={ name=__myl_CastSilu fqn=__myl_CastSilu_0x1 args={ "x.1" "h" } input_args={ "x.1" } output_args={ "h" } grid = { 1 1 } layers="[ONNX Layer: in/Cast][ONNX Layer: in/Mul]" }
  corrltn={ name="conv" output={"y" } input={"part^deref" "w" } scratchspace={"s" } stream=0 alpha=3F000000 scalar_alpha_from_opnd=false layers="[ONNX Layer: conv]" }
  function={ name=_gemm_mha_v2 fqn=_gemm_mha_v2_0x2 args={ "y" } input_args={ "y" } output_args={ "y" } layers="[ONNX Layer: attention]" }
}
shape_main {
 label bb0:
  copy={ name="copy_d2s" output={"n" } input={"{ForeignNode[a...b]}_in.1" }  stream=0  speculate={ }}
  memset={ name="two" output={"__s^2i64" }  src="2i64" stream=0 }
  mul={ name="twice" output={"2n" } input={"n" "__s^2i64" }  stream=0  speculate={ }}
  copy={ name="copy_s2d" output={"n.1" } input={"n" }  stream=0  speculate={ }}
  copy={ name="copy_s2d" output={"2n.1" } input={"2n" }  stream=0  speculate={ }}
}
"""  # noqa: E501
PROGRAM = read_program(TEXT)
COMPILED = Compiled(programs=(PROGRAM,))


def test_what_is_read() -> None:
    assert COMPILED.architectures == ("sm86", "sm89")
    assert PROGRAM.regions[0] == Region(name="devmem_0", size=2048, on_device=True, constant=False)
    assert COMPILED.arena_bytes == 2048 + 256, "the host's memory and the constants are not counted"
    assert COMPILED.constants == {"half": 18}
    assert COMPILED.kernels == {"CastSilu": 1, "_gemm_mha_v2": 1}
    assert COMPILED.attentions == 1
    conv = Product(name="conv", kind="corrltn", factors=("half", "half"), result="float", alpha=0.5, width=None)
    assert COMPILED.products == (conv,), "also of a value that is part of another"
    assert PROGRAM.operations[0].layers == ("in/Cast", "in/Mul")


@pytest.mark.parametrize(("rows", "bytes_"), [(1, 128), (3, 256), (32, 2048)])
def test_the_arena_at_other_sizes(rows: int, bytes_: int) -> None:
    """The larger of 16 halves and, for twice as many rows, 8 floats; in steps of 128 bytes, and 100 behind 128."""
    assert arena_at(COMPILED, {"x": (rows, 4)}) == bytes_ + 256


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ("mul={", "modpow={"),
        (" type=half }", " type=trit }"),
        ('input={"n" "__s^2i64" }', 'input={"m" "__s^2i64" }'),
        ("name=devmem_1 size=256", "name=devmem_1 size=0"),
        ("accelerators={sm86 sm89 }", "accelerators={*}"),
    ],
    ids=["operation", "type", "symbol", "memory of its own", "no program"],
)
def test_an_arena_that_is_not_understood_is_none_and_never_wrong(known: str, unknown: str) -> None:
    assert known in TEXT
    assert arena_at(Compiled(programs=(read_program(TEXT.replace(known, unknown)),)), {"x": (3, 4)}) is None


def test_numbers_that_grow_without_end_are_not_followed() -> None:
    squares = "".join(f'  mul={{ name="s" output={{"n{i + 1}" }} input={{"n{i}" "n{i}" }} }}\n' for i in range(10**3))
    text = TEXT.replace('input={"n" "__s', 'input={"n1000" "__s').replace('{"n" }', '{"n0" }')
    text = text.replace(" label bb0:\n", f" label bb0:\n{squares}")
    assert arena_at(Compiled(programs=(read_program(text),)), {"x": (3, 4)}) is None


def test_values_larger_than_an_arena_may_hold_are_named() -> None:
    assert not COMPILED.allocates
    outside = read_program(TEXT.replace("name=devmem_1 size=256", "name=devmem_1 size=0"))
    assert Compiled(programs=(outside,)).allocates == ("s",)


def test_an_engine_s_programs_lie_among_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "engine").write_bytes(b"\xff\0" + TEXT.encode() + b"\0" * 9 + TEXT.encode() + b"\0weights")
    assert read_compiled(tmp_path / "engine") == Compiled(programs=(PROGRAM, PROGRAM))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no program",
        b"header {\n",
        b"header {\n}\nmain {\n  = { } \n}\n\0",
        b"header {\n  region = { name=devmem_0 size=" + b"9" * 5000 + b" place=accelerator }\n}\n",
    ],
)
def test_what_is_no_engine_has_no_program(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "engine").write_bytes(content)
    found = read_compiled(tmp_path / "engine")
    assert found is None or (not found.kernels and not found.arena_bytes)
