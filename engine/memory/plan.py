"""One planner decides what is resident when, before anything is allocated.

A picture passes through phases; each phase needs some components in memory and some working memory. The plan says, for
a budget, which components stay loaded after their phase (`keep`), and what the peak will be. It is made from the
manifest alone: no weights are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import MemoryBudgetError
from ..folder.manifest import Manifest
from .sizes import format_bytes

LEAST = 0
"""A budget that asks for as little memory as possible: nothing is kept, and no picture is refused."""

# The interpreter, numpy, the tokenizer and ONNX Runtime's library before the first weight: measured as the resident set
# of a process that has loaded the bundled engine's tokenizer and an empty session.
RUNTIME_BYTES = 150 << 20
# What ONNX Runtime takes beyond the weights' bytes (the graph, packed copies) and beyond what is alive (free stretches
# of its arena seldom fit). Measured on full-size SDXL: 1.15 for the U-Nets, 1.05 for their arena, 1.52 for the VAE's at
# 1024x1024 (benchmarks/results/2026-11-22-full-size-epyc-2-cores.json). A plan should rather promise too little.
WEIGHT_OVERHEAD = 1.15
ARENA_OVERHEAD = 1.6


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of a picture: the components that must be loaded, and the working memory of each."""

    name: str
    components: tuple[str, ...]
    working_bytes: int


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What is resident when. `rows` of `table()` are in running order; all sizes are bytes."""

    width: int
    height: int
    phases: tuple[Phase, ...]
    keep: frozenset[str]
    weights: Mapping[str, int]
    budget: int | None

    @property
    def peak_bytes(self) -> int:
        """The predicted peak resident set of the process."""
        return max(self.phase_bytes(i) for i in range(len(self.phases)))

    def resident(self, index: int) -> tuple[str, ...]:
        """Components in memory during phase `index`, on the second and later pictures (kept ones included)."""
        return tuple(sorted({*self.phases[index].components, *self.keep}))

    def phase_bytes(self, index: int) -> int:
        """Predicted resident bytes during phase `index`."""
        held = sum(self.weights[name] for name in self.resident(index))
        return RUNTIME_BYTES + held + self.phases[index].working_bytes

    def table(self) -> list[dict[str, object]]:
        """One row a phase: its name, what is resident, weight bytes, working bytes and the sum."""
        return [
            {
                "phase": phase.name,
                "resident": list(self.resident(i)),
                "weight_bytes": sum(self.weights[name] for name in self.resident(i)),
                "working_bytes": phase.working_bytes,
                "total_bytes": self.phase_bytes(i),
            }
            for i, phase in enumerate(self.phases)
        ]


def make_plan(
    manifest: Manifest,
    *,
    width: int,
    height: int,
    steps: int = 50,
    images: int = 1,
    tokens: int = 77,
    refiner: bool = True,
    guidance: bool = True,
    budget: int | None = None,
) -> MemoryPlan:
    """Plan a picture of `width` × `height` pixels within `budget` bytes.

    `budget` None keeps everything loaded, `LEAST` keeps nothing.

    Everything is kept if it fits. Otherwise components are given up one after another, those that are used for the
    shortest time first: text encoders and conditioners, then the VAE, then the U-Nets (base and refiner swap).
    Raises `MemoryBudgetError` that names the least budget that works.
    """
    phases = _phases(manifest, width=width, height=height, steps=steps, images=images, tokens=tokens, refiner=refiner,
                     guidance=guidance)  # fmt: skip
    used = {name for phase in phases for name in phase.components}
    weights = {name: int(WEIGHT_OVERHEAD * manifest.components[name].weight_bytes) for name in sorted(used)}
    order = _given_up_in_order(used)
    for given_up in range(len(order) + 1):
        plan = MemoryPlan(width=width, height=height, phases=phases, keep=frozenset(order[given_up:]), weights=weights,
                          budget=budget)  # fmt: skip
        if budget is None or plan.peak_bytes <= budget:
            return plan
    if budget == LEAST:
        return plan
    raise MemoryBudgetError(
        f"{width}x{height} needs at least {format_bytes(plan.peak_bytes)} (phase "
        f"'{max(plan.table(), key=lambda row: int(str(row['total_bytes'])))['phase']}'), the budget is "
        f"{format_bytes(budget or 0)}; raise the budget or make a smaller picture"
    )


def _given_up_in_order(used: set[str]) -> list[str]:
    def rank(name: str) -> tuple[int, str]:
        if "text_encoder" in name or name.endswith("/conditioner"):
            return (0, name)
        return (1, name) if name == "vae_decoder" else (2, name)

    return sorted(used, key=rank)


def _phases(
    manifest: Manifest, *, width: int, height: int, steps: int, images: int, tokens: int, refiner: bool, guidance: bool
) -> tuple[Phase, ...]:
    pixels = width * height
    rows = 2 if guidance else 1
    models = [kind for kind in ("base", "refiner") if kind in manifest.models.denoisers and (refiner or kind == "base")]

    def working(name: str) -> int:  # one row a call, see `Pipeline`
        alive = manifest.components[name].activation.bytes_at(pixels, batch=1, tokens=tokens, steps=steps)
        return int(ARENA_OVERHEAD * alive)

    encoders = tuple(dict.fromkeys(name for kind in models for name in manifest.models.denoisers[kind].text_encoders))
    phases = [Phase(name=f"encode {name}", components=(name,), working_bytes=working(name)) for name in encoders]
    held = 0  # keys, values and time vectors stay alive from the conditioner to the end of the loop
    for kind in models:
        arch = manifest.models.denoisers[kind].unet
        held += 4 * rows * (2 * tokens * sum(arch.attention_widths()) + steps * sum(arch.resnet_widths()))
        name = f"{kind}/conditioner"
        phases.append(Phase(name=f"condition {kind}", components=(name,), working_bytes=held + working(name)))
    latents = 4 * images * 4 * pixels // 64
    for kind in models:
        name = f"{kind}/unet"
        # Samplers hold a few copies of the latents; eight covers the longest history.
        phases.append(
            Phase(name=f"denoise {kind}", components=(name,), working_bytes=held + 8 * latents + working(name))
        )
    pictures = images * pixels * 3 * 5  # float32 and uint8
    phases.append(Phase(name="decode", components=("vae_decoder",), working_bytes=pictures + working("vae_decoder")))
    return tuple(phases)


def format_table(plan: MemoryPlan) -> str:
    """The plan as aligned text, one line a phase."""
    head = f"{'phase':<24}{'weights':>12}{'working':>12}{'total':>12}  resident"
    lines = [head]
    for row in plan.table():
        sizes = "".join(
            f"{format_bytes(int(str(row[k]))):>12}" for k in ("weight_bytes", "working_bytes", "total_bytes")
        )
        names = row["resident"]
        everything = names == sorted(plan.weights)
        shown = "everything" if everything else ", ".join(names) if isinstance(names, list) else ""
        lines.append(f"{row['phase']:<24}{sizes}  {shown}")
    return "\n".join(lines)
