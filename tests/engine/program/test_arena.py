"""What lives at once lies apart; what is added to lies where it was; and the size is what a call takes."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.program.arena import Arena, Range, lay_out
from pocketxl.engine.program.calls import PlannedCall, Resolved, resolve
from pocketxl.engine.program.program import Call, Operand
from pocketxl.engine.program.sizes import Sizes
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.launch import Buffer, LaunchPlan

from ...fixtures.small_programs import small_program

PROGRAM, _ = small_program()


Described = tuple[dict[str, str], dict[str, int], dict[str, int]]


def resolved_of(*calls: Described, inputs: dict[str, int]) -> Resolved:
    """From (role → value read, value → bytes made, scratch → bytes) of each call; what is made first has role `out`."""
    values, planned = dict(inputs), []
    for reads, makes, scratch in calls:
        roles = {("out" if i == 0 else f"more{i}"): name for i, name in enumerate(makes)}

        def buffers(sizes: dict[str, int]) -> dict[str, Buffer]:
            return {name: Buffer(shape=(size,), dtype="int8") for name, size in sizes.items()}

        plan = LaunchPlan(
            op="op",
            inputs=buffers({role: values[name] for role, name in reads.items()}),
            outputs=buffers({role: makes[name] for role, name in roles.items()}),
            scratch=buffers(scratch),
            launches=(),
        )
        operands = {role: Operand(name=name) for role, name in reads.items()}
        planned.append(PlannedCall(call=Call(op="op", layer="", shape={}, inputs=operands, outputs=roles), plan=plan))
        values |= makes
    return Resolved(calls=tuple(planned), inputs=inputs, values=values)


def all_ranges(arena: Arena) -> Iterator[tuple[str, Range]]:
    yield from arena.values.items()
    for i, call in enumerate(arena.scratch):
        yield from ((f"scratch {i} {name}", place) for name, place in call.items())


def assert_apart(resolved: Resolved, arena: Arena) -> None:
    """By the definition: whoever is needed at a call shares no byte with anybody else that is."""
    ranges = list(all_ranges(arena))
    for call, planned in enumerate(resolved.calls):
        replaced = {op.name for role, op in planned.call.inputs.items() if role == "residual"}
        live = [(name, r) for name, r in ranges if r.first <= call <= r.last]
        for i, (name, a) in enumerate(live):
            assert 0 <= a.offset <= arena.size - a.size
            assert a.offset % 256 == 0
            for other, b in live[:i]:
                apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
                made = planned.call.outputs.get("out")
                in_place = {name, other} in [{made, r} for r in replaced] and a.offset == b.offset
                assert apart or in_place, (call, name, other)


def assert_alive(resolved: Resolved, arena: Arena, outputs: list[str]) -> None:
    """Whatever a call reads is there, from what made it on."""
    for i, planned in enumerate(resolved.calls):
        for operand in planned.call.inputs.values():
            if operand.name in PROGRAM.weights:
                continue
            assert arena.values[operand.name].first <= i <= arena.values[operand.name].last
        for name in planned.call.outputs.values():
            assert arena.values[name].first == i
    assert all(arena.values[name].last == len(resolved.calls) - 1 for name in outputs)


@st.composite
def programs(draw: st.DrawFn) -> tuple[Resolved, list[str]]:
    sizes = st.sampled_from([1, 100, 256, 257, 1000, 4096])
    inputs = {f"i{i}": draw(sizes) for i in range(draw(st.integers(1, 2)))}
    values, calls = dict(inputs), []
    for i in range(draw(st.integers(1, 12))):
        roles = draw(st.lists(st.sampled_from(["x", "residual", "x2"]), min_size=1, unique=True))
        reads = {role: draw(st.sampled_from(sorted(values))) for role in roles}
        like = values[reads["residual"]] if "residual" in reads and draw(st.booleans()) else draw(sizes)
        makes = {f"v{i}": like} | ({f"w{i}": draw(sizes)} if draw(st.booleans()) else {})
        scratch = {f"s{k}": draw(sizes) for k in range(draw(st.integers(0, 2)))}
        calls.append((reads, makes, scratch))
        values |= makes
    made = [name for _, makes, _ in calls for name in makes]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=2, unique=True))
    return resolved_of(*calls, inputs=inputs), outputs


@given(programs())
def test_no_two_that_live_at_once_overlap(drawn: tuple[Resolved, list[str]]) -> None:
    resolved, outputs = drawn
    arena = lay_out(resolved, outputs)
    assert_apart(resolved, arena)
    assert_alive(resolved, arena, outputs)


@given(programs())
def test_the_size_is_reached_and_nothing_is_placed_twice_for_it(drawn: tuple[Resolved, list[str]]) -> None:
    resolved, outputs = drawn
    arena = lay_out(resolved, outputs)
    assert arena.size == max(r.offset + -(-r.size // 256) * 256 for _, r in all_ranges(arena))


@given(programs())
def test_inputs_lie_side_by_side_at_the_beginning_for_the_whole_call(drawn: tuple[Resolved, list[str]]) -> None:
    resolved, outputs = drawn
    arena = lay_out(resolved, outputs)
    end = 0
    for name, size in resolved.inputs.items():
        place = arena.values[name]
        assert (place.offset, place.size, place.first, place.last) == (end, size, 0, len(resolved.calls) - 1)
        end += -(-size // 256) * 256
    assert arena.given == end
    assert all(place.offset >= end for name, place in all_ranges(arena) if name not in resolved.inputs)


def test_a_chain_takes_the_room_of_two_behind_its_input() -> None:
    calls: list[Described] = [({"x": f"v{i}"}, {f"v{i + 1}": 256}, {}) for i in range(10)]
    assert lay_out(resolved_of(*calls, inputs={"v0": 256}), ["v10"]).size == 3 * 256


def test_the_residual_stream_stays_in_place() -> None:
    calls: list[Described] = [({"x": "i", "residual": f"v{i}"}, {f"v{i + 1}": 512}, {}) for i in range(5)]
    arena = lay_out(resolved_of(*calls, inputs={"i": 256, "v0": 512}), ["v5"])
    assert arena.size == 768 + 512
    assert len({arena.values[f"v{i}"].offset for i in range(1, 6)}) == 1, "all but the input, which stays"


MAKE_V0: Described = ({"x": "i"}, {"v0": 512}, {})


@pytest.mark.parametrize(
    ("reads", "size"),
    [({"residual": "v0", "x": "v0"}, 512), ({"residual": "v0"}, 1024), ({"x": "v0"}, 512)],
    ids=["read twice", "of another size", "no residual"],
)
def test_a_place_is_not_taken_from_what_is_still_read(reads: dict[str, str], size: int) -> None:
    calls: list[Described] = [MAKE_V0, (reads, {"v1": size}, {})]
    assert lay_out(resolved_of(*calls, inputs={"i": 256}), ["v1"]).size == 256 + 512 + size


def test_a_part_of_a_value_is_not_replaced() -> None:
    resolved = resolved_of(({"x": "i"}, {"v0": 300}, {}), ({"residual": "v0"}, {"v1": 300}, {}), inputs={"i": 256})
    first, planned = resolved.calls
    part = replace(planned.call, inputs={"residual": Operand(name="v0", offset=100)})  # of 400, which are 512 as well
    values = {"i": 256, "v0": 400, "v1": 300}
    resolved = Resolved(calls=(first, replace(planned, call=part)), inputs=resolved.inputs, values=values)
    assert lay_out(resolved, ["v1"]).size == 256 + 2 * 512


def test_a_residual_that_is_needed_later_keeps_its_place() -> None:
    calls: list[Described] = [MAKE_V0, ({"residual": "v0"}, {"v1": 512}, {}), ({"x": "v0"}, {"v2": 512}, {})]
    arena = lay_out(resolved_of(*calls, inputs={"i": 256}), ["v2"])
    assert arena.values["v1"].offset != arena.values["v0"].offset


def test_what_is_held_elsewhere_takes_no_room_and_is_not_replaced() -> None:
    resolved = resolved_of(({"residual": "v0"}, {"v1": 512}, {}), inputs={"v0": 512})
    arena = lay_out(resolved, ["v1"], elsewhere=["v0"])
    assert arena.size == 512
    assert "v0" not in arena.values


def test_a_network() -> None:
    resolved = resolve(PROGRAM, Sizes(batch=2, height=16, width=16), architecture(90))
    arena = lay_out(resolved, ["prediction"])
    assert_apart(resolved, arena)
    assert_alive(resolved, arena, ["prediction"])
    assert arena.values["h.0"].offset == arena.values["h.1"].offset == arena.values["h.4"].offset
    at_once = [
        {r.offset: r.size for _, r in all_ranges(arena) if r.first <= call <= r.last}
        for call in range(len(resolved.calls))
    ]  # by offset: what is in place counts once
    assert arena.size <= 1.05 * max(sum(sizes.values()) for sizes in at_once)  # nothing can be below one of these


def test_ranges_end_once_unless_somebody_takes_the_place() -> None:
    calls: list[Described] = [
        MAKE_V0,
        ({"x": "i", "residual": "v0"}, {"v1": 512}, {"s": 128}),
        ({"x": "v1"}, {"v2": 384}, {}),
    ]
    arena = lay_out(resolved_of(*calls, inputs={"i": 256}), ["v2"])
    assert [r.size for r in arena.ending(0)] == []
    assert [r.size for r in arena.ending(1)] == [128]  # s; v1 lies where v0 was, and the input stays
    assert sorted(r.size for r in arena.ending(2)) == [256, 384, 512]
