"""`--keep`: layers by name or pattern stay in floats, whatever the recipe says."""

from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import QualityError, RequestError
from pocketxl.engine.progress import Silent
from pocketxl.engine.specs import Role
from pocketxl.export.build import build
from pocketxl.export.job import Job, open_as, prepare
from pocketxl.export.job_keys import component_keys, reference_key
from pocketxl.export.keep import keeping, layers_of
from pocketxl.export.quantize.formats import A8_SCORES, FLOAT32, Kind
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

from ..fixtures.builds import components_made
from ..fixtures.command_line import run

pytestmark = pytest.mark.usefixtures("quick_builds")


def job(folders: dict[str, Path], *keep: str, recipe: str = "int8", target: str = "cpu") -> Job:
    return prepare(
        open_as(folders["base"], "base", None),
        None,
        target=find_target(target),
        recipe=RECIPES[recipe],
        keep=keep,
        calibration_size=None,
        progress=Silent(),
    )


def kept(made: Job) -> set[str]:
    """The layers that would be quantized if nobody had asked for them."""
    found = set()
    for name, component in made.assembly.components.items():
        role = component.spec.role
        for layer, kind in layers_of(component).items():
            if made.recipes[name].format(role, kind, layer) != made.recipe.format(role, kind, layer):
                assert made.recipes[name].format(role, kind, layer) == FLOAT32
                found.add(f"{name}:{layer}")
    return found


def test_what_a_target_rounds_beyond_the_recipe_is_kept_too(tiny_folders: dict[str, Path]) -> None:
    """Scores of attention, which the recipe does not speak of."""
    pytest.importorskip("openvino")
    plain, made = (job(tiny_folders, *keep, target="openvino") for keep in ((), ("base/unet:*.attn1",)))
    unet = plain.assembly.components["base/unet"]
    names = [name for name, kind in layers_of(unet).items() if kind is Kind.ATTENTION]
    assert names
    for name in names:
        assert plain.recipes["base/unet"].format(Role.UNET, Kind.ATTENTION, name) == A8_SCORES
        assert made.recipes["base/unet"].format(Role.UNET, Kind.ATTENTION, name) == FLOAT32


def test_names_and_patterns_are_those_of_the_layers(tiny_folders: dict[str, Path]) -> None:
    one = "base/unet:down_blocks.0.resnets.0.conv1"
    assert kept(job(tiny_folders)) == set()
    assert kept(job(tiny_folders, one)) == {one}
    assert keeping(RECIPES["int8"], one, job(tiny_folders).assembly.components) == job(tiny_folders, one).recipes
    everywhere = kept(job(tiny_folders, "*.ff.net.2", one))
    assert len(everywhere) > 4
    assert {name.rpartition(".ff")[2] for name in everywhere - {one}} == {".net.2"}
    assert kept(job(tiny_folders, "*ff.net.2", recipe="fp32")) == set()
    geglu = next(
        layer for layer in layers_of(job(tiny_folders).assembly.components["base/unet"]) if "net.0.proj" in layer
    )
    recipe = job(tiny_folders, f"base/unet:{geglu}").recipes["base/unet"]
    role = job(tiny_folders).assembly.components["base/unet"].spec.role
    assert recipe.format(role, Kind.LINEAR, f"{geglu}.1") == FLOAT32, "a pass splits it into .0 and .1"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("base/unet:down_blocks.0.resnets.0.conv9", "did you mean 'base/unet:down_blocks.0.resnets.0.conv"),
        ("down_blocks.0.resnets.0.conv1", "did you mean 'base/unet:down_blocks.0.resnets.0.conv1'"),
        ("refiner/unet:*", "names look like 'text_encoder:"),
        ("", "names look like"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused_with_what_comes_close(
    tiny_folders: dict[str, Path], pattern: str, says: str
) -> None:
    with pytest.raises(RequestError) as refused:
        job(tiny_folders, "*ff.net.2", pattern)
    assert repr(pattern) in str(refused.value)
    assert says in str(refused.value)


def test_the_layers_are_part_of_the_build_key_and_their_spelling_is_not(tiny_folders: dict[str, Path]) -> None:
    plain, some = job(tiny_folders), job(tiny_folders, "base/unet:*ff.net.2")
    assert plain.parts != some.parts
    again = job(
        tiny_folders, "*/unet:*ff.net.2", "base/unet:*.ff.net.2", "base/unet:conv_in"
    )  # which int8 keeps anyway
    assert some.parts == again.parts
    assert some.parts["kept layers"].startswith("in base/unet (")
    changed = {name for name, key in component_keys(plain).items() if component_keys(some)[name] != key}
    assert changed == {"base/unet", "base/conditioner"}, "what is smoothed together is built again together"


def test_recipes_share_the_reference_and_what_they_do_alike(tiny_folders: dict[str, Path]) -> None:
    first, second = (job(tiny_folders, recipe=recipe) for recipe in ("int8-weight", "int4-weight"))
    assert reference_key(first) == reference_key(second)
    changed = {name for name, key in component_keys(first).items() if component_keys(second)[name] != key}
    assert changed == {"base/unet", "base/conditioner"}
    assert reference_key(first) == reference_key(job(tiny_folders, recipe="int8"))


def test_a_missed_gate_names_layers_that_keep_takes_and_the_next_build_uses_what_is_there(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from pocketxl.export.reference.streamed import StreamedModule

    base, out = tiny_folders["base"], tmp_path / "engine"
    with monkeypatch.context() as strict:
        limits = {
            **RECIPES["int8"].max_relative_error,
            job(tiny_folders).assembly.components["base/unet"].spec.role: 1e-3,
        }
        strict.setitem(RECIPES, "int8", replace(RECIPES["int8"], max_relative_error=limits))
        with pytest.raises(QualityError, match=r"base/unet:\S+ \(.*--keep LAYER.*--recipe fp32") as missed:
            build(base, out, recipe="int8", strict=True)
    (note,) = missed.value.__notes__
    assert str(tmp_path / ".engine.building") in note
    layer = next(word for word in str(missed.value).split() if word.startswith("base/unet:") and "." in word)
    call = StreamedModule.__call__

    def only_colours(self: StreamedModule, inputs: Any) -> Any:
        """What previews need of the VAE is no part of the reference run."""
        return call(self, inputs) if self.spec.role is Role.VAE_DECODER else pytest.fail("the reference ran again")

    monkeypatch.setattr(StreamedModule, "__call__", only_colours)
    with components_made() as made:
        shown = run(capsys, "build", base, "-o", out, "--recipe", "int8", "--keep", layer, "--strict")
    assert shown.status == 0, shown.err
    assert made == ["base/conditioner", "base/unet", "vae_decoder", "vae_encoder"]
