"""`pocketxl generate` as a user meets it: the picture, its settings, and one clear line for all that is wrong."""

import os
import signal
import sys
from pathlib import Path

import onnxruntime
import pytest

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.folder.samples import SAMPLE_FILE
from pocketxl.engine.picture.files import read_picture
from pocketxl.engine.picture.infotext import parse
from pocketxl.engine.picture.parameters import keywords
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.command_line import run, start_command


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.png"


def nothing_deserialised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **keywords: object) -> None:
        raise AssertionError(f"a model file was read: {args}")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)


REFUSED = [
    (("--width", "63"), 2, "use 56 or 64"),
    (("--width", "0"), 2, "width is 0"),
    (("--height", "-8"), 2, "height is -8"),
    (("--height", "100000"), 2, "8 to 8192"),
    (("--steps", "0"), 2, "1 to 1000"),
    (("--steps", "-1"), 2, "1 to 1000"),
    (("--steps", "99999999"), 2, "1 to 1000"),
    (("--guidance-scale", "nan"), 2, "guidance_scale is nan"),
    (("--guidance-scale", "inf"), 2, "guidance_scale is inf"),
    (("--guidance-scale", "-1"), 2, "0 to 100"),
    (("--guidance-rescale", "nan"), 2, "guidance_rescale is nan"),
    (("--sampler", "magic"), 2, "euler, euler_a"),
    (("--schedule", "magic"), 2, "karras"),
    (("--seed", "-1"), 2, "seed is -1"),
    (("--seed", str(2**64)), 2, "seed is"),
    (("-n", "0"), 2, "1 to 64"),
    (("-n", "1000"), 2, "1 to 64"),
    (("--threads", "0"), 2, "1 to 256"),
    (("--threads", "100000"), 2, "1 to 256"),
    (("--aspect", "5"), 2, "3:2"),
    (("--aspect", "3:2", "--width", "64"), 2, "--width"),
    (("--denoising-end", "1.5"), 2, "below 1"),
    (("--budget", "lots"), 2, "4GiB"),
    (("--budget", ""), 2, "4GiB"),
    (("--budget", "0"), 2, "4GiB"),
    (("--budget", "1MB"), 4, "raise the budget"),
    (("-o", "out.gif"), 2, ".png, .jpg, .jpeg or .webp"),
    (("-o", "out.jpg", "--quality", "0"), 2, "1 to 100"),
    (("--quality", "50"), 2, "PNG keeps"),
    (("--like", "nowhere.png"), 5, "nowhere.png"),
    (("-o", "nowhere/folder/"), 5, "the folder nowhere does not exist"),
    (("-o", ""), 2, ".png"),
    (("-o", "nowhere/out.png"), 5, "nowhere"),
    (("--engine", "nowhere"), 6, "pocketxl build"),
]


@pytest.mark.parametrize(
    ("options", "status", "says"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_bad_values_are_refused_before_anything_is_loaded(
    options: tuple[str, ...],
    status: int,
    says: str,
    tiny_engine: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing_deserialised(monkeypatch)
    monkeypatch.chdir(out.parent)
    shown = run(capsys, "generate", "a cat", "--engine", tiny_engine, "-o", out, *options, "--json")
    assert shown.status == status
    assert says in shown.complaint()
    (event,) = shown.events()
    assert (event["event"], event["exit_code"]) == ("error", status)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    "prompt",
    ["a\udc80b", "(a cat:999)", "cat " * 2500, "x" * 32_001],
    ids=["surrogate", "weight", "10,000 characters", "too long"],
)
def test_prompts_that_are_no_prompts_are_refused(
    prompt: str, tiny_engine: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "generate", prompt, "--engine", tiny_engine, "-o", out)
    assert shown.status == 2
    assert shown.complaint()


@pytest.mark.parametrize("prompt", ["", "cat " * 1100, "a\x00b\u202e, (unbalanced"], ids=["empty", "long", "odd"])
def test_empty_long_and_odd_prompts_make_pictures(
    prompt: str, tiny_engine: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", prompt, "--engine", tiny_engine, "-o", out, "--steps", "1", "--threads", "1")
    shown = run(capsys, *command, "--no-refiner")
    assert shown.status == 0, shown.err
    text = read_picture(out).parameters
    assert text is not None
    assert parse(text)["Prompt"] == prompt


@pytest.mark.parametrize("place", ["folder", "too long", "no permission"])
def test_a_picture_that_cannot_be_written_is_told_and_leaves_nothing(
    place: str, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = {
        "folder": tmp_path / "d-1.png",
        "too long": tmp_path / f"{'x' * 300}.png",
        "no permission": Path("/proc/x.png"),
    }[place]
    if place == "folder":
        out.mkdir()
        out = out.with_name("d.png")
    before = list(tmp_path.rglob("*"))
    shown = run(capsys, "generate", "a cat", "--engine", tiny_engine, "-n", "2", "-o", out, "--steps", "1")
    assert shown.status == 5
    assert str(out)[:-4][:60] in shown.complaint()
    assert list(tmp_path.rglob("*")) == before


def test_a_picture_can_be_made_again_from_the_settings_inside_it(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    options = [
        "--steps",
        "3",
        "--sampler",
        "dpmpp_2m",
        "--schedule",
        "karras",
        "--guidance-scale",
        "6.25",
        "--width",
        "72",
    ]
    command = (
        "generate",
        'a red cat, (sky:1.3): "blue"',
        "--engine",
        tiny_engine,
        "--negative-prompt",
        "dog",
        "--threads",
        "1",
    )
    assert run(capsys, *command, *options, "-o", first).status == 0  # a seed of its own, and the refiner
    shown = run(capsys, "inspect", first, "--json")
    settings = shown.events()[0]["parameters"]
    wanted = keywords(settings)
    with Pipeline.load(tiny_engine, threads=1) as pipe:
        picture = pipe(**wanted, output_type="np")
    assert (picture.request.width, picture.request.sampler.name, picture.request.refiner) == (72, "dpmpp_2m", True)
    assert run(capsys, *command, *options, "--seed", settings["Seed"], "-o", again).status == 0
    assert again.read_bytes() == first.read_bytes()
    written = read_picture(first).parameters
    assert written is not None
    assert written in run(capsys, "inspect", first).out
    from PIL import Image

    from pocketxl.engine.vae import to_uint8

    assert Image.open(first).tobytes() == to_uint8(picture.images[0]).tobytes()


def test_json_tells_stages_in_order_and_then_each_picture(
    tiny_engine: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", "a cat", "--engine", tiny_engine, "-o", out, "--steps", "2", "-n", "2", "--seed", "5")
    shown = run(capsys, *command, "--json", "--threads", "1")
    events = shown.events()
    assert shown.status == 0
    assert shown.err == ""
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["encode", "load", "denoise", "decode"]
    for stage in set(stages):
        steps = [e for e in events if e.get("stage") == stage]
        assert (steps[0]["step"], steps[-1]["done"]) == (0, True)
        assert steps[-1]["step"] == steps[-1]["total"]
        if stage == "load":  # each component once, with its bytes
            needed = set(read_manifest(tiny_engine).components) - {"vae_encoder"}
            assert sorted(e["detail"] for e in steps if e["done"]) == sorted(needed)
            assert all(e["unit"] == "B" and e["total"] > 0 for e in steps)
        else:
            assert [e["done"] for e in steps].count(True) == 2
        assert steps[-1]["picture"] == (1 if stage == "load" else 2)
    assert [e["remaining_total"] for e in events if e.get("stage") == "decode"][-1] == 0
    pictures = [event for event in events if event["event"] == "picture"]
    assert events[-1] == pictures[-1]
    assert [(Path(p["path"]).name, p["seed"]) for p in pictures] == [("out-1.png", 5), ("out-2.png", 6)]
    assert all(Path(p["path"]).is_file() for p in pictures)


def engine_files() -> list[str]:
    """Every file that a picture needs of an engine of base and refiner; held to the real folder by the test below."""
    models: tuple[str, ...] = ("text_encoder", "text_encoder_2", "vae_decoder")
    models += tuple(f"{kind}/{part}" for kind in ("base", "refiner") for part in ("conditioner", "unet"))
    tokenizers = [f"{name}/{file}" for name in ("tokenizer", "tokenizer_2") for file in TOKENIZER_FILES]
    return ["engine.json", *tokenizers, *(f"{m}/{f}" for m in models for f in ("model.onnx", "model.onnx.data"))]


TOKENIZER_FILES = ("merges.txt", "tokenizer_config.json", "vocab.json")


def test_the_list_of_files_is_that_of_an_engine(tiny_engine: Path) -> None:
    manifest = read_manifest(tiny_engine)
    samples = [f"{name}/{SAMPLE_FILE}" for name in manifest.components if name != "vae_encoder"]
    others = ("vae_encoder/", "/open", "/cached", "/shallow")  # pictures as input, adapters, kept features
    needed = [file.path for file in manifest.files if not any(part in file.path for part in others)]
    assert sorted([*engine_files(), *samples]) == sorted(["engine.json", *needed])


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
@pytest.mark.parametrize("file", engine_files())
def test_one_flipped_byte_is_found_before_the_file_is_read(
    file: str,
    harm: str,
    tiny_engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = linked(tiny_engine, tmp_path / "engine")
    victim = engine / file
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    if harm != "remove":
        victim.write_bytes(content if harm == "flip" else content[:-1])
    sessions = watch_sessions(monkeypatch)
    verified = run(capsys, "verify", engine)
    assert verified.status == 6
    assert victim.name in verified.complaint()
    assert not sessions
    made = run(
        capsys, "generate", "a cat", "--engine", engine, "-o", tmp_path / "x.png", "--steps", "2", "--threads", "1"
    )
    assert made.status == 6
    assert victim.name in made.complaint()
    assert str(victim.parent) not in {str(Path(path).parent) for path in sessions}
    assert not (tmp_path / "x.png").exists()


def linked(engine: Path, copy: Path) -> Path:
    """A copy of an engine folder that shares its files with it."""
    for path in engine.rglob("*"):
        target = copy / path.relative_to(engine)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    return copy


def watch_sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model files that ONNX Runtime was given, as they come."""
    seen: list[str] = []
    real = onnxruntime.InferenceSession

    def session(path: str, *args: object, **options: object) -> object:
        seen.append(path)
        return real(path, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return seen


@pytest.mark.parametrize(
    ("package", "stage"), [("onnxruntime", "load"), ("tokenizers", "load"), ("PIL", "write"), ("tqdm", "bars")]
)
def test_a_missing_package_is_named_with_its_extra(
    package: str,
    stage: str,
    tiny_engine: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    shown = run(capsys, "generate", "a cat", "--engine", tiny_engine, "-o", out, "--steps", "1", "--no-refiner")
    assert shown.status == 3
    assert "pip install -e '.[cpu]'" in shown.complaint()
    assert not out.exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("finished", [0, 1])
def test_ctrl_c_keeps_the_pictures_that_are_done(finished: int, tiny_engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    (tmp_path / "x-1.png").write_bytes(b"an older picture")
    rest = ["-o", str(out), "--overwrite", "--steps", "30", "-n", "3", "--json", "--threads", "1"]
    with start_command("generate", "a cat", "--engine", str(tiny_engine), *rest) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pictures, line = 0, ""
        while not (pictures == finished and '"denoise", "step": 2' in line):
            line = process.stdout.readline()
            pictures += '"event": "picture"' in line
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == 130
    assert err.splitlines() == [
        f"pocketxl: interrupted; {finished} of 3 pictures written, nothing half-written was left"
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["x-1.png"]
    assert (tmp_path / "x-1.png").read_bytes().startswith(b"\x89PNG" if finished else b"an older")


def test_each_picture_is_written_before_the_next_begins_and_is_the_one_of_its_seed(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", "a cat", "--engine", tiny_engine, "--steps", "2", "--threads", "1")
    shown = run(capsys, *command, "-o", f"{tmp_path}/all/", "-n", "3", "--seed", "5", "--json")
    order = [e["event"] for e in shown.events() if e["event"] == "picture" or e.get("stage") == "decode"]
    assert "".join(event[:2] for event in order).count("pi" + "pr") == 2  # decoding goes on after a picture was told
    assert run(capsys, *command, "-o", tmp_path / "one.png", "--seed", "6").status == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "all" / "00002.png").read_bytes()


def test_a_place_that_takes_no_picture_is_told_before_the_work(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_deserialised(monkeypatch)
    (tmp_path / "x.png").write_bytes(b"mine")
    for output in ("/proc/x.png", tmp_path / "x.png"):
        shown = run(capsys, "generate", "a cat", "--engine", tiny_engine, "-o", output)
        assert shown.status == 5
        assert str(output) in shown.complaint()
    assert (tmp_path / "x.png").read_bytes() == b"mine"


def test_unknown_syntax_is_told(tiny_engine: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", "[cat:dog:0.5] <lora:x:1>", "--negative-prompt", "a AND b", "--engine", tiny_engine)
    rest = ("-o", out, "--overwrite", "--steps", "1", "--no-refiner", "--threads", "1")
    told = "taken as plain words, because there is no such syntax here: <lora:x:1>  AND"
    assert run(capsys, *command, *rest).err.splitlines()[0] == f"pocketxl: {told}"
    assert run(capsys, *command, *rest, "--quiet").err == ""
    assert {"event": "warning", "message": told} in run(capsys, *command, *rest, "--json").events()
    assert "plain words" not in run(capsys, *command, *rest, "--literal").err
    text = read_picture(out).parameters
    assert text is not None
    assert parse(text)["Prompt"] == r"\[cat:dog:0.5\] <lora:x:1>"
