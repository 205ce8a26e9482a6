"""A component's folder, from the ONNX master: `program.json`, `weights.bin`, `kernels.bin`, and what some have more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....engine.errors import StorageError
from ....engine.folder.files import WORDS_FILE
from ....engine.program.program import Edge, Program
from ....engine.program.read import KERNELS_FILE, PROGRAM_FILE, WEIGHTS_FILE, to_json
from ....engine.program.slots import RANKS, SLOTS_FILE, Slot, slots_text, with_rank
from .binaries import binaries
from .edges import first_calls, inputs_of, outputs_of
from .forms import FormatOf
from .lower import steps_of
from .select import select
from .slots import slots_of
from .stored import Packer, Stored
from .write import write_kernels, write_weights, write_words

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.program.program import Call
    from ....engine.specs import ComponentSpec
    from .steps import Words


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """A component before its weights: calls, what they read, and the edges."""

    calls: "tuple[Call, ...]"
    stored: Mapping[str, Stored]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    slots: tuple[Slot, ...] = ()
    words: "Words | None" = None


def lowered(model: "ir.Model", spec: "ComponentSpec", format_of: FormatOf, *, slotted: bool = False) -> Lowering:
    """The calls of a master whose layers have these formats; `slotted`: with places for low-rank pairs.

    Raises `IncompatibleError` for what there is no kernel for.
    """
    steps = steps_of(model)
    chosen = select(steps, format_of)
    calls = (*first_calls(spec), *chosen.calls)
    return Lowering(
        inputs=inputs_of(spec, steps),
        outputs=outputs_of(spec, steps),
        calls=calls,
        stored=chosen.stored,
        words=steps.words,
        slots=tuple(slots_of(calls, chosen.stored)) if slotted else (),
    )


def write_component(
    lowering: Lowering,
    packer: Packer,
    out: Path,
    architectures: Sequence[int],
    *,
    jobs: int,
    tell: Callable[[str], None],
) -> Program:
    """Write the files. Raises `StorageError`, and `IncompatibleError` for kernels that do not compile."""
    from ....kernels.configs import digest

    weights = write_weights(out / WEIGHTS_FILE, lowering.stored, packer, tell)
    if lowering.words is not None:
        write_words(out / WORDS_FILE, lowering.words, packer, tell)
    compiled = binaries([*lowering.calls, *_ranked(lowering.slots)], architectures, jobs=jobs, tell=tell)
    found, portable = write_kernels(out / KERNELS_FILE, compiled)
    program = Program(
        inputs=lowering.inputs,
        outputs=lowering.outputs,
        calls=lowering.calls,
        weights=weights,
        binaries=found,
        portable=portable,
        tables=digest(),
    )
    try:
        (out / PROGRAM_FILE).write_text(to_json(program), encoding="utf-8")
        if lowering.slots:
            (out / SLOTS_FILE).write_text(slots_text(lowering.slots), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    return program


def _ranked(slots: Sequence[Slot]) -> Iterator["Call"]:
    """The calls of slots at every rank that there are kernels for."""
    for slot in slots:
        for call in slot.calls:
            for rank in RANKS:
                yield replace(call, shape=with_rank(call.shape, rank))
