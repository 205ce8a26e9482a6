"""A program at one picture's sizes on one architecture: what it launches, what it needs compiled, what it takes."""

from collections.abc import Collection
from dataclasses import dataclass

from ...kernels.architecture import Architecture
from ...kernels.launch import Variant
from .arena import Arena, lay_out
from .calls import Resolved, resolve
from .program import Program
from .sizes import Sizes


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """`arena.size` is the working memory of a call in bytes."""

    sizes: Sizes
    resolved: Resolved
    arena: Arena

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every compiled kernel that it launches, once."""
        plans = {id(planned.plan): planned.plan for planned in self.resolved.calls}
        return tuple(dict.fromkeys(variant for plan in plans.values() for variant in plan.variants))


def prepare(program: Program, sizes: Sizes, arch: Architecture, *, elsewhere: Collection[str] = ()) -> Prepared:
    """`elsewhere`: input values that have memory of their own, as those that are held. Raises as `resolve`."""
    resolved = resolve(program, sizes, arch)
    outputs = [value.name for edge in program.outputs for value in edge.values]
    return Prepared(sizes=sizes, resolved=resolved, arena=lay_out(resolved, outputs, elsewhere=elsewhere))
