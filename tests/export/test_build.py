"""`pocketxl build`: the same weights give the same bytes in every form, and bad sources one clear line each."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import (
    IncompatibleError,
    IntegrityError,
    PocketXLError,
    QualityError,
    RequestError,
    StorageError,
)
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.export.build import build
from pocketxl.export.checkpoint.weights import Weights
from pocketxl.export.publish import destination as destination_module
from pocketxl.export.publish import workspace as publish
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.publish.workspace import Workspace
from pocketxl.export.quantize.recipes import RECIPES

from ..fixtures.builds import allowed
from ..fixtures.command_line import files, run
from ..fixtures.original_layout import write_single_file

pytestmark = pytest.mark.usefixtures("quick_builds")


@pytest.fixture(scope="session")
def single_files(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("single")
    return {kind: write_single_file(folder, root / f"{kind}.safetensors") for kind, folder in tiny_folders.items()}


@pytest.mark.parametrize(
    ("recipe", "refiner"),
    [("fp32", False), ("int8", True)],
)
def test_folder_and_single_file_build_the_same_bytes(
    recipe: str, refiner: bool, tiny_folders: dict[str, Path], single_files: dict[str, Path], tmp_path: Path
) -> None:
    folders, singles = tiny_folders, single_files
    build(folders["base"], tmp_path / "a", refiner=folders["refiner"] if refiner else None, recipe=recipe)
    other: dict[str, Any] = {"refiner": singles["refiner"], "refiner_config": folders["refiner"]} if refiner else {}
    build(singles["base"], tmp_path / "b", config=folders["base"], recipe=recipe, **other)
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert verify(tmp_path / "a").files == len(first)


def test_the_life_of_an_engine(
    engine: Path,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One engine through all that can happen to it, because each build costs seconds."""
    base, before = tiny_folders["base"], files(engine)
    command = ("build", base, "-o", engine, "--recipe", "fp32")

    with monkeypatch.context() as hit:  # a hit reads no weights, and says so
        hit.setattr(Weights, "tensor", lambda self, name: pytest.fail(f"read {name}"))
        hit.setattr(Weights, "_hash", lambda self, name: pytest.fail(f"hashed {name}"))
        assert "up to date" in run(capsys, *command).out
        (event,) = [e for e in run(capsys, *command, "--json").events() if e["event"] == "built"]
    assert (event["cached"], event["reasons"]) == (True, [])
    assert files(engine) == before

    with monkeypatch.context() as failing:  # every component is refused: each changed input says that it changed
        failing.setattr(Workspace, "component", lambda self, name, make: pytest.fail("built"))
        for change, reason in changes(tiny_folders, tmp_path):
            reasons = why(monkeypatch, engine, {"source": base, "recipe": "fp32", **change})
            assert any(reason in line for line in reasons), reasons

    with monkeypatch.context() as gated:  # a missed gate names layers; the engine stays
        strict = replace(RECIPES["int8-weight"], max_relative_error=allowed(RECIPES["fp32"], 1e-9))
        gated.setitem(RECIPES, "int8-weight", strict)
        with pytest.raises(QualityError, match=r"text_encoder.*worst layers") as missed:
            build(base, engine, recipe="int8-weight")
        assert missed.value.exit_code == 7
        assert "self_attn" in str(missed.value) or "mlp" in str(missed.value) or "embedding" in str(missed.value)
    assert files(engine) == before

    seen: list[dict[str, bytes]] = []

    def watched(new: Path, destination: Path, aside: Path) -> None:
        seen.append(files(destination))
        destination_module.swap(new, destination, aside)

    monkeypatch.setattr(publish, "swap", watched)
    shown = run(capsys, *command[:-1], "int8-weight")
    assert shown.status == 0, shown.err
    assert "recipe: fp32 -> int8-weight" in shown.out
    assert seen == [before]  # the old one was whole until the instant of the exchange
    assert read_manifest(engine).recipe == "int8-weight"
    assert sorted(p.name for p in tmp_path.iterdir() if ".building" in p.name) == []


def changes(folders: dict[str, Path], tmp_path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    yield {"recipe": "int8"}, "recipe: fp32 -> int8"
    yield {"refiner": folders["refiner"]}, "weights of refiner.unet"
    yield {"calibration_size": 32}, "configuration"
    for part, file in (
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("vae", "diffusion_pytorch_model"),
    ):
        copy = tmp_path / f"other-{part}"
        shutil.copytree(folders["base"], copy)
        weights = copy / part / f"{file}.safetensors"
        tensors = load_file(weights)
        name = min(tensors)
        tensors[name] = tensors[name] + torch.finfo(torch.float32).eps
        save_file(tensors, weights)
        yield {"source": copy}, f"weights of base.{part}"
    copy = tmp_path / "other-scheduler"
    shutil.copytree(folders["base"], copy)
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace('"epsilon"', '"v_prediction"'))
    yield {"source": copy}, "configuration"


def why(monkeypatch: pytest.MonkeyPatch, engine: Path, options: dict[str, Any]) -> list[str]:
    """Why a build of these options would not take the engine that is there."""
    from pocketxl.export import build as module

    reasons: list[str] = []

    def watched(destination: Path, parts: Any, progress: Any) -> Any:
        found = find_engine(destination, parts, progress)
        assert found.manifest is None
        reasons.extend(found.reasons)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(module, "find_engine", watched)
        with pytest.raises(InterruptedError):
            build(destination=engine, **options)
    return reasons


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"source": "nowhere"}, StorageError, "does not exist"),
        ({"source": "pickle.ckpt"}, IntegrityError, "pickle"),
        ({"source": "pickle.bin"}, IntegrityError, "pickle"),
        ({"source": "renamed.safetensors"}, IntegrityError, "pickle"),
        ({"source": "cut.safetensors"}, IntegrityError, "fetch it again"),
        ({"source": "empty.safetensors"}, IntegrityError, "fetch it again"),
        ({"source": "sd15.safetensors"}, IncompatibleError, "Stable Diffusion 1"),
        ({"source": "lora.safetensors"}, IncompatibleError, "LoRA"),
        ({"source": "REFINER"}, IncompatibleError, "--refiner"),
        ({"--refiner": "BASE"}, IncompatibleError, "not as --refiner"),
        ({"--config": "BASE"}, IncompatibleError, "omit --config"),
        ({"--refiner-config": "BASE"}, RequestError, "refiner"),
        ({"--target": "toaster"}, RequestError, "rtx-sm89"),
        ({"--recipe": "fp8"}, RequestError, "int8-weight"),
        ({"--target": "rtx-sm75", "--recipe": "int4-weight"}, RequestError, "fp16"),
        ({"--calibration-size": "0"}, RequestError, "multiple of 8"),
        ({"--calibration-size": "100000000"}, RequestError, "2048"),
        ({"-o": "occupied"}, StorageError, "not an engine folder"),
        ({"-o": "pickle.ckpt"}, StorageError, "is a file"),
        ({"-o": "/proc/engine"}, StorageError, "/proc/"),
    ],
    ids=lambda value: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_sources_and_options_are_one_clear_line(
    options: dict[str, str],
    kind: type[PocketXLError],
    says: str,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"BASE": str(tiny_folders["base"]), "REFINER": str(tiny_folders["refiner"])}
    bad_sources(tmp_path, tiny_folders["base"])
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    given = {"source": "BASE", "-o": "engine", "--recipe": "fp32", **options}
    source = names.get(given["source"], given.pop("source"))
    given.pop("source", None)
    shown = run(capsys, "build", source, *(names.get(x, x) for pair in given.items() for x in pair), "--json")
    assert (shown.status, shown.events()[-1]["error"]) == (kind.exit_code, kind.__name__)
    assert says in shown.complaint()
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("cache/")} == before


def bad_sources(folder: Path, base: Path) -> None:
    """What people give to a builder by mistake."""
    import torch
    from safetensors.torch import save_file

    for name in ("pickle.ckpt", "pickle.bin", "renamed.safetensors"):
        torch.save({"weight": torch.zeros(2)}, folder / name)
    whole = (base / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "empty.safetensors").write_bytes(b"")
    unet = "model.diffusion_model."
    text = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    sd15 = {f"{unet}input_blocks.0.0.weight": (320, 4, 3, 3), text: (49408, 768)}
    sd15[f"{unet}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = (320, 768)
    save_file({name: torch.zeros(shape) for name, shape in sd15.items()}, folder / "sd15.safetensors")
    lora = "lora_unet_down_blocks_1_attentions_0_proj_in.lora_"
    save_file(
        {f"{lora}down.weight": torch.zeros(4, 640), f"{lora}up.weight": torch.zeros(640, 4)},
        folder / "lora.safetensors",
    )
    (folder / "occupied").mkdir()
    (folder / "occupied/letter.txt").write_text("dear")


def test_json_events_come_in_the_order_of_the_stages(
    tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "build", tiny_folders["base"], "-o", tmp_path / "engine", "--recipe", "fp32", "--json")
    events = shown.events()
    assert (shown.status, shown.err) == (0, "")
    stages = list(dict.fromkeys(e["stage"] for e in events[:-1]))
    assert stages == [
        "read", "build", "lower", "reference", "check: pictures", "publish",
    ]  # fmt: skip
    for stage in stages:
        own = [e for e in events[:-1] if e["stage"] == stage]
        assert own[0]["step"] == 0
        assert own[-1]["done"]
        assert own[-1]["step"] == own[0]["total"] > 0, stage
        steps = [e["step"] for e in own]
        assert steps == sorted(steps)
    weights = sum(p.stat().st_size for p in tiny_folders["base"].rglob("*.safetensors"))
    assert 0.98 * weights < events[0]["total"] <= weights
    assert events[-1]["event"] == "built"
    assert events[-1]["reasons"] == [f"there is no engine at {tmp_path / 'engine'} yet"]


def test_the_help_names_the_default_recipe_of_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "build", "--help")
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines may end at a hyphen
    assert "(default: int8 for cpu, openvino, cuda; fp16 for onnx-fp16, rtx, tensorrt)" in shown
