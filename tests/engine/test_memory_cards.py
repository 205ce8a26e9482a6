"""What an engine does on cards: in agreement with the plan that a card of that memory would get."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import MemoryBudgetError, RequestError
from pocketxl.engine.folder.files import entry_of
from pocketxl.engine.folder.manifest import FILE_NAME, ActivationModel, Segment, Streaming, read_manifest
from pocketxl.engine.memory.cards import MOST, STEP, TAKEN, Card, OnCard, on_cards, unets_stay_from, usual_cards
from pocketxl.engine.memory.plan import LEAST, MemoryPlan, make_plan
from pocketxl.engine.memory.sizes import GiB
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Range, Runner
from pocketxl.engine.specs import Role

from ..fixtures.rtx_on_host import rtx_engine
from ..fixtures.watched import Wrapped

CALL: dict[str, Any] = {"width": 512, "height": 512, "num_inference_steps": 10}


@pytest.fixture(scope="module")
def on_rtx(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Base and refiner for cards, on a machine without one."""
    return Pipeline.load(rtx_engine(tiny_engine, tmp_path_factory.mktemp("rtx")))


def plan(pipe: Pipeline, budget: int, side: int = 512) -> MemoryPlan:
    return pipe.plan("a cat", budget=budget, **{**CALL, "width": side, "height": side})


def ask(pipe: Pipeline, free: int) -> OnCard:
    workload = plan(pipe, 1 << 40).workload
    (found,) = on_cards(pipe.models, pipe.runners, workload, [Card(name="a card", memory=0, free=free)])
    return found


def test_the_u_nets_stay_together_take_turns_or_do_not_fit(on_rtx: Pipeline) -> None:
    whole, least = plan(on_rtx, 1 << 40).peak_bytes, plan(on_rtx, LEAST).peak_bytes
    assert least < whole
    everything = ask(on_rtx, whole)
    assert (everything.fits, everything.unets, everything.plan.peak_bytes) == (True, "together", whole)
    assert everything.plan.keep == set(on_rtx.runners) - {"vae_encoder"}  # which no picture comes in for
    turns = ask(on_rtx, least)
    assert (turns.fits, turns.unets, turns.plan.peak_bytes) == (True, "in turns", least)
    none = ask(on_rtx, least - 1)
    assert (none.fits, none.unets, none.plan.peak_bytes) == (False, "in turns", least), "what it would take at least"


def test_the_least_memory_with_which_the_u_nets_stay(on_rtx: Pipeline) -> None:
    workload = plan(on_rtx, 1 << 40).workload
    stay = unets_stay_from(on_rtx.models, on_rtx.runners, workload)
    assert plan(on_rtx, LEAST).peak_bytes < stay < plan(on_rtx, 1 << 40).peak_bytes
    assert (ask(on_rtx, stay).unets, ask(on_rtx, stay).plan.peak_bytes) == ("together", stay)
    assert ask(on_rtx, stay - 1).unets == "in turns"
    alone = on_rtx.plan("a cat", **CALL, refiner=False).workload
    assert unets_stay_from(on_rtx.models, on_rtx.runners, alone) < stay


def test_a_base_alone_stays_or_is_loaded_anew_for_every_picture(on_rtx: Pipeline) -> None:
    workload = on_rtx.plan("a cat", **CALL, refiner=False).workload
    cards = [Card(name="", memory=0, free=size) for size in (1 << 40, 1)]
    assert [one.unets for one in on_cards(on_rtx.models, on_rtx.runners, workload, cards)] == ["stays", "reloaded"]


def test_the_largest_picture_fits_and_the_next_does_not(on_rtx: Pipeline) -> None:
    free = (plan(on_rtx, LEAST, 1024).peak_bytes + plan(on_rtx, LEAST, 1024 + STEP).peak_bytes) // 2
    assert ask(on_rtx, free).largest == 1024
    assert plan(on_rtx, free, 1024).peak_bytes <= free
    with pytest.raises(MemoryBudgetError):
        plan(on_rtx, free, 1024 + STEP)
    assert ask(on_rtx, 1).largest is None
    assert ask(on_rtx, 1 << 50).largest == MOST


def test_what_the_engine_was_compiled_for_bounds_sizes_and_prompts(on_rtx: Pipeline) -> None:
    runners = dict(on_rtx.runners)
    runners["base/unet"] = Compiled(
        on_rtx.runners["base/unet"], {"height": (8, 96), "width": (8, 128), "tokens": (77, 154)}
    )
    workload = plan(on_rtx, 1 << 40).workload
    (found,) = on_cards(on_rtx.models, runners, workload, [Card(name="", memory=0, free=1 << 50)])
    assert found.largest == 768
    for changes, says in (
        (
            {"height": 776},
            "height is 776, this engine takes 64 to 768; choose another size, or build .* with --largest",
        ),
        ({"width": 1032}, "width is 1032, this engine takes 64 to 1024"),
        ({"prompt_tokens": (77, 231)}, "the prompt's tokens are 231, this engine takes 77 to 154; shorten the prompt"),
    ):
        with pytest.raises(RequestError, match=says):
            make_plan(on_rtx.models, runners, replace(workload, **changes))


class Compiled(Wrapped):
    """Compiled for a range."""

    def __init__(self, inner: Runner, ranges: Mapping[str, Range]) -> None:
        super().__init__(inner)
        self.ranges = ranges


def test_what_an_engine_has_on_the_processor_takes_nothing_of_a_card(tiny_engine: Path, tmp_path: Path) -> None:
    """As engines of our own kernels have their text encoders."""
    folder = rtx_engine(tiny_engine, tmp_path / "cuda")
    manifest = read_manifest(folder)
    on_gpu = {Role.UNET, Role.VAE_DECODER}
    components = {
        name: replace(entry, runner="cuda" if entry.spec.role in on_gpu else "ort")
        for name, entry in manifest.components.items()
    }
    (folder / FILE_NAME).write_text(replace(manifest, target="cuda", components=components).to_json(), encoding="utf-8")
    pipe = Pipeline.load(folder)
    whole = ask(pipe, 1 << 40)
    weights = sum(entry.weight_bytes for entry in components.values() if entry.runner == "cuda")
    assert (whole.unets, whole.plan.pool) == ("together", "device")
    assert {whole.plan.weight_bytes(i, "device") for i in range(len(whole.plan.phases))} == {weights}
    assert ask(pipe, whole.plan.peak_bytes - 1).plan.keep < whole.plan.keep


def test_usual_cards_have_the_memory_they_are_sold_with_less_what_others_take() -> None:
    cards = usual_cards()
    assert [card.name for card in cards] == ["4 GB", "6 GB", "8 GB", "12 GB"]
    assert [card.memory // GiB for card in cards] == [4, 6, 8, 12]
    assert {card.memory - card.free for card in cards} == {TAKEN}


def test_a_decoder_goes_over_bands_before_a_u_net_is_given_up(tiny_engine: Path, tmp_path: Path) -> None:
    folder = rtx_engine(tiny_engine, tmp_path / "rtx")
    manifest = read_manifest(folder)
    vae = manifest.components["vae_decoder"]
    heavy = ActivationModel(terms={"batch*pixels": 4000.0})
    streaming = Streaming(
        segments=(Segment(file="segment_00.engine", start=0, size=1000),),
        activation=ActivationModel(terms={"1": 1e6}),
        carried=ActivationModel(terms={"batch*pixels": 100.0}),
        program="bands.json",
    )
    for name in ("segment_00.engine", "bands.json"):
        (folder / "vae_decoder" / name).write_bytes(bytes(1000))
    files = (*vae.files, *(entry_of(folder, f"vae_decoder/{n}") for n in ("segment_00.engine", "bands.json")))
    entry = replace(
        vae, files=files, activation=heavy, streaming=streaming, weight_bytes=sum(file.size for file in files)
    )
    changed = replace(manifest, components={**manifest.components, "vae_decoder": entry})
    (folder / FILE_NAME).write_text(changed.to_json(), encoding="utf-8")
    pipe = Pipeline.load(folder)
    unets = {name for name in pipe.runners if pipe.runners[name].spec.role is Role.UNET}
    whole = plan(pipe, 1 << 40)
    assert not whole.streamed
    banded = plan(pipe, whole.peak_bytes // 2)
    assert banded.streamed == {"vae_decoder"}
    assert unets <= banded.keep
    assert banded.peak_bytes <= whole.peak_bytes // 2
    assert not plan(pipe, LEAST).streamed
    stay = plan(pipe, unets_stay_from(pipe.models, pipe.runners, whole.workload))
    assert stay.streamed == {"vae_decoder"}
    assert unets <= stay.keep
