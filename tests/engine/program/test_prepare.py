"""What a build asks of a program: the kernels to compile, and the memory of a call."""

from pocketxl.engine.program.prepare import prepare
from pocketxl.engine.program.sizes import Sizes
from pocketxl.kernels.architecture import architecture

from ...fixtures.small_programs import brief_program

PROGRAM, _ = brief_program()
SIZES = Sizes(batch=2, height=16, width=16)


def test_every_kernel_is_named_once() -> None:
    prepared = prepare(PROGRAM, SIZES, architecture(89))
    launched = {
        plan.variant(launch).name for c in prepared.resolved.calls for plan in [c.plan] for launch in plan.launches
    }
    names = [variant.name for variant in prepared.variants]
    assert set(names) == launched
    assert len(names) == len(launched) == 7  # of ten launches: what is there twice is compiled once


def test_what_is_held_elsewhere_is_not_in_the_memory_of_a_call() -> None:
    whole = prepare(PROGRAM, SIZES, architecture(89))
    less = prepare(PROGRAM, SIZES, architecture(89), elsewhere=["key", "value"])
    assert set(whole.arena.values) - set(less.arena.values) == {"key", "value"}
    assert less.arena.size < whole.arena.size
