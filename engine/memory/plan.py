"""One planner decides what is resident when, before anything is allocated.

A picture passes through phases; each phase needs some components in memory and some working memory. The plan says, for
a budget, which components stay loaded after their phase (`keep`), and what the peak will be. Components say themselves
what they take (`Runner.footprint`); nothing is loaded for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..architecture import Models
from ..errors import MemoryBudgetError
from ..request.decoders import DECODERS
from ..runners.base import Footprint, Pool, Runner, Sizes, Streams
from ..specs import Role
from ..text.cache import CHUNKS
from . import controls, enlarging
from .features import feature_bytes, unstreamed
from .phase import Phase
from .ranges import check_ranges
from .sizes import format_bytes
from .steering import steering_bytes, steering_phases
from .workload import Workload

LEAST = 0
"""A budget that asks for as little memory as possible: nothing is kept, and no picture is refused."""
# Given up in this order: what is used for the shortest time first.
GIVEN_UP: Mapping[Role, int] = {Role.VAE_DECODER: 1, Role.TINY_DECODER: 1, Role.UNET: 2}
"""0 for all others."""
FLOAT = 4
LATENT_COPIES = 8
"""Samplers hold a few copies of the latents; this covers the longest history."""
PICTURE_CHANNELS = 3
# A picture on its way out of the VAE: the runner's array, transposed, scaled and clipped, each once in floats.
PICTURE_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What is resident when; all sizes are bytes. `table()` has the phases in running order."""

    workload: Workload
    phases: tuple[Phase, ...]
    keep: frozenset[str]
    footprints: Mapping[str, Footprint]
    overhead: Mapping[Pool, int]
    """What the process takes before the first component."""
    budget: int | None
    calls: int = 1
    """How many such calls may run at once."""
    streamed: frozenset[str] = frozenset()
    """Components whose weights stay on the disk and come piece by piece while they run."""

    @property
    def pool(self) -> Pool:
        """The pool that a budget speaks of: the GPU's memory where an engine computes there."""
        return "device" if any(f.pool == "device" for f in self.footprints.values()) else "host"

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of the pool that the budget speaks of; on the host, the process's resident set."""
        return self.peak_of(self.pool)

    def peak_of(self, pool: Pool) -> int:
        """The predicted peak of one pool."""
        return max(self.phase_bytes(i, pool) for i in range(len(self.phases)))

    def resident(self, index: int) -> tuple[str, ...]:
        """Components in memory during phase `index`, on the second and later calls (kept ones included)."""
        return tuple(sorted({*self.phases[index].components, *self.keep}))

    def weight_bytes(self, index: int, pool: Pool) -> int:
        """Weights in a pool during phase `index`."""
        return sum(f.weights for name in self.resident(index) if (f := self.footprints[name]).pool == pool)

    def working_bytes(self, index: int, pool: Pool) -> int:
        """What else: arrays that are held, the working memory of the phase's component, what kept ones retain."""
        phase = self.phases[index]
        found = (phase.held_bytes if pool == "host" else 0) + self._scratch_bytes(index, pool)
        for name in self.resident(index):
            footprint = self.footprints[name]
            if footprint.pool == pool and name in phase.components:
                found += phase.constant_bytes * (name == phase.component) + (
                    0 if footprint.scratch else footprint.working
                )
            elif footprint.pool == pool:
                found += footprint.retained
        return found * self.calls

    def _scratch_bytes(self, index: int, pool: Pool) -> int:
        """What the scratch has grown to in phase `index`, on the second and later calls: see `Footprint.scratch`."""
        here = size = 0
        for phase in (*self.phases, *self.phases[: index + 1]):
            used = {n: f.working for n in phase.components if (f := self.footprints[n]).scratch and f.pool == pool}
            here = size = max(size, *used.values(), 0)
            if not used.keys() <= self.keep:
                size = 0
        return here

    def phase_bytes(self, index: int, pool: Pool) -> int:
        """Predicted bytes in a pool during phase `index`."""
        return self.overhead.get(pool, 0) + self.weight_bytes(index, pool) + self.working_bytes(index, pool)

    def table(self) -> list[dict[str, object]]:
        """One row a phase: its name, what is resident, weight bytes, working bytes and the sum."""
        return [
            {
                "phase": phase.name,
                "resident": list(self.resident(i)),
                "weight_bytes": self.weight_bytes(i, self.pool),
                "working_bytes": self.working_bytes(i, self.pool),
                "total_bytes": self.phase_bytes(i, self.pool),
            }
            for i, phase in enumerate(self.phases)
        ]


def make_plan(
    models: Models,
    runners: Mapping[str, Runner],
    workload: Workload,
    *,
    budget: int | None = None,
    calls: int = 1,
    beside: int = 0,
) -> MemoryPlan:
    """Plan a call within `budget` bytes. `budget` None keeps everything that fits, `LEAST` keeps nothing.

    `calls` like this one may run at once: they share the weights, and each has its own working memory. `beside`: bytes
    on the host that adapters take all the time.

    Without a budget of the caller's a GPU sets one: what was free on it. It decides what is kept and refuses nothing,
    because what is predicted is a little more than what is taken.

    Everything is kept if it fits. Otherwise components are given up one after another, those that are used for the
    shortest time first: text encoders and conditioners, then the VAE, then the U-Nets (base and refiner swap). Those
    that a budget has no place for even alone are streamed where they can be (`Streams`); on a GPU, where weights stay
    on it, before a U-Net is given up. `LEAST` asks for no such cost.
    Raises `MemoryBudgetError` that names the least budget that works, and `RequestError` for sizes that the engine was
    not compiled for.
    """
    phases = _phases(models, workload, runners)
    used = {name: runners[name] for phase in phases for name in phase.components}
    check_ranges(models, used, workload)
    order = sorted(used, key=lambda name: (GIVEN_UP.get(used[name].spec.role, 0), name))
    overhead = _overhead(used)
    overhead["host"] += beside
    footprints = {name: runner.footprint(_sizes(runner, workload)) for name, runner in sorted(used.items())}
    limit = _room(used) if budget is None else budget
    for given_up in range(len(order) + 1):
        plan = MemoryPlan(workload=workload, phases=phases, keep=frozenset(order[given_up:]), footprints=footprints,
                          overhead=overhead, budget=limit, calls=calls)  # fmt: skip
        if limit is None or plan.peak_bytes <= limit:
            return plan
        if budget != LEAST and all(used[name].spec.role is Role.UNET for name in order[given_up:]):
            # On a card that is bands of rows, which cost less than to bring a U-Net in again.
            banded = _streamed(plan, {name: used[name] for name in used if footprints[name].pool == "device"}, limit)
            if banded.peak_bytes <= limit:
                return banded
    if budget in (None, LEAST):
        return plan
    plan = _streamed(plan, used, budget or 0)
    if plan.peak_bytes <= (budget or 0):
        return plan
    worst = max(range(len(phases)), key=lambda i: plan.phase_bytes(i, plan.pool))
    raise MemoryBudgetError(
        f"{workload.width}x{workload.height} needs at least {format_bytes(plan.peak_bytes)} (phase "
        f"'{phases[worst].name}'), the budget is {format_bytes(budget or 0)}; raise the budget or make a smaller "
        "picture, or fewer at once" + unstreamed(used, loras=beside > 0)
    )


def _streamed(plan: MemoryPlan, runners: Mapping[str, Runner], budget: int) -> MemoryPlan:
    """The plan with every component of `runners` streamed whose phase is too large and that takes less so."""
    footprints = dict(plan.footprints)
    for index, name in [(index, name) for index, phase in enumerate(plan.phases) for name in phase.components]:
        if name not in runners or plan.phase_bytes(index, plan.pool) <= budget:
            continue
        runner = runners[name]
        if isinstance(runner, Streams):
            found, whole = runner.streamed(_sizes(runner, plan.workload)), plan.footprints[name]
            if found is not None and plan.calls * (found.working - whole.working) < whole.weights - found.weights:
                footprints[name] = found
    streamed = {name for name, footprint in footprints.items() if footprint is not plan.footprints[name]}
    return replace(plan, footprints=footprints, streamed=frozenset(streamed))


def _phases(models: Models, workload: Workload, runners: Mapping[str, Runner]) -> tuple[Phase, ...]:
    """The phases in running order, each with what the pipeline holds meanwhile."""
    kinds = list(workload.evaluations)
    embeds = {kind: embedding_bytes(models, workload, kind) for kind in kinds}
    cached = cache_bytes(models, workload)
    latents = FLOAT * workload.images * LATENT_COPIES * _latent_numbers(models, workload)
    phases = []
    held = cached + 2 * sum(embeds.values())  # the encoders' outputs, and what is put together of them
    for name in dict.fromkeys(name for kind in kinds for name in models.denoisers[kind].text_encoders):
        phases.append(Phase(name=f"encode {name}", component=name, held_bytes=held))
    held = cached + sum(embeds.values())
    phases += enlarging.phases(workload, held + latents)
    if workload.encoded:
        given = FLOAT * PICTURE_CHANNELS * workload.pixels
        held += given * workload.encoded + workload.kept_bytes
        phases.append(
            Phase(name="encode picture", component="vae_encoder", held_bytes=held + latents + PICTURE_COPIES * given)
        )
    for kind in kinds:
        # Where both sides are one call, a prompt that stands alone now and then is held a second time.
        again = workload.rests and runners[f"{kind}/unet"].rows > 1
        constant = conditioning_bytes(models, workload, kind, rows=workload.rows + again)
        steered = kind == controls.MODEL
        steering = steering_bytes(runners, workload) if steered else 0
        held += steering
        if steered:
            before, constant = steering_phases(runners, workload, held + latents, constant)
            phases += before
        name = f"{kind}/conditioner"
        phases.append(
            Phase(name=f"condition {kind}", component=name, held_bytes=held + latents, constant_bytes=constant)
        )
        held -= embeds[kind]
        name = f"{kind}/unet"
        phases.append(
            Phase(
                name=f"denoise {kind}",
                component=name,
                held_bytes=held
                + latents
                + (controls.residual_bytes(runners, workload) if steered else 0)
                + feature_bytes(runners[name], workload),
                constant_bytes=constant,
                beside=tuple(controls.part(control, "unet") for control in workload.controls if steered),
            )
        )
        held -= steering
    if workload.decoded:
        pictures = FLOAT * PICTURE_CHANNELS * workload.pixels * (workload.images + PICTURE_COPIES)
        pictures += workload.pasting_bytes
        phases.append(
            Phase(name="decode", component=DECODERS[workload.decoder], held_bytes=cached + latents + pictures)
        )
    return tuple(phases)


def cache_bytes(models: Models, workload: Workload) -> int:
    """What the encoders' outputs for the last prompts take at most (`text.cache`)."""
    names = {name for kind in workload.evaluations for name in models.denoisers[kind].text_encoders}
    encoders = [models.text_encoders[name] for name in names]
    return CHUNKS * FLOAT * max((e.hidden_size * e.max_position_embeddings for e in encoders), default=0)


def embedding_bytes(models: Models, workload: Workload, kind: str) -> int:
    """What one model's prompt embeddings take, of all prompts and both sides of the guidance."""
    unet = models.denoisers[kind].unet
    return FLOAT * workload.rows * sum(n * unet.cross_attention_dim + unet.pooled_dim for n in workload.prompt_tokens)


def conditioning_bytes(models: Models, workload: Workload, kind: str, *, rows: int) -> int:
    """What one model's keys, values and time vectors take, of all prompts and `rows` sides of each."""
    unet = models.denoisers[kind].unet
    keys_and_values = 2 * sum(workload.prompt_tokens) * sum(unet.attention_widths())
    time_vectors = len(workload.prompt_tokens) * workload.evaluations[kind] * sum(unet.resnet_widths())
    return FLOAT * rows * (keys_and_values + time_vectors)


def _latent_numbers(models: Models, workload: Workload) -> int:
    return models.vae.latent_channels * workload.pixels // models.vae.downscale**2


def _sizes(runner: Runner, workload: Workload) -> Sizes:
    role = runner.spec.role
    if role is Role.UPSCALER:
        return enlarging.sizes(workload)
    kind = controls.model_of(runner.name)
    return Sizes(
        # A conditioner is called with as many sides of the guidance as its U-Net.
        rows=min(runner.rows, workload.rows) if role in (Role.UNET, Role.CONDITIONER) else 1,
        tokens=max(workload.prompt_tokens, default=0),
        steps=workload.evaluations.get(kind, 0),
        pixels=workload.pixels,
    )


def _overhead(runners: Mapping[str, Runner]) -> dict[Pool, int]:
    devices = [runner.device for runner in runners.values()]
    return {pool: max(device.overhead.get(pool, 0) for device in devices) for pool in ("host", "device")}


def _room(runners: Mapping[str, Runner]) -> int | None:
    """What the GPU has for us; None where everything runs on the host."""
    rooms = [room for runner in runners.values() if (room := runner.device.room) is not None]
    return min(rooms, default=None)
