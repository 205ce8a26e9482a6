"""A manifest that contradicts itself is refused when it is opened, whatever its digest says."""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine import bounds, tiny
from pocketxl.engine.architecture import TextEncoderArchitecture, UNetArchitecture, VaeArchitecture
from pocketxl.engine.errors import IncompatibleError, IntegrityError, NumericError
from pocketxl.engine.folder import manifest
from pocketxl.engine.folder.manifest import FILE_NAME, Manifest, read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.tiny import TinyDecoderArchitecture
from pocketxl.engine.topology import Depths

from ...fixtures.manifest_mutations import mutated, sealed

TEXT = (FOLDER / FILE_NAME).read_text()
# Two steps: the base makes the first, the refiner the second.
CALL: dict[str, Any] = {"prompt": "a red apple", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}
FREE = ("models.vae.scaling_factor", "force_zeros_for_empty_prompt", ".scheduler.")
"""What a picture may depend on beside the files."""

Data = dict[str, Any]


def base(data: Data) -> Data:
    found: Data = data["models"]["denoisers"]["base"]
    return found


def plain_graph(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(file for file in part(data)["files"] if file["path"].endswith("/model.onnx"))
    return found


def part(data: Data, name: str = "base/unet") -> Data:
    found: Data = data["components"][name]
    return found


def swap(outer: Data, key: str, other: str) -> None:
    outer[key], outer[other] = outer[other], outer[key]


def assign(outer: Any, key: Any, value: object) -> None:
    outer[key] = value


def streaming(**changes: object) -> Data:
    """What a component in segments says of itself, with something changed."""
    segments = [{"file": "model.onnx", "start": 0, "size": 1}]
    memory = {"terms": {"1": 1.0}, "dequantized_bytes": 0}
    return {"segments": segments, "activation": memory, "carried": memory} | changes


def segments(*found: tuple[str, int, int]) -> list[Data]:
    """Segments by file, start and size."""
    return [{"file": file, "start": start, "size": size} for file, start, size in found]


def deeper_latents(d: Data) -> None:
    """Colours of as many channels as before would be told first."""
    d["models"].pop("latent_colours", None)
    assign(d["models"]["vae"], "latent_channels", 8)


REFUSED: dict[str, tuple[Callable[[Data], object], str]] = {
    "a depth of 10^9": (lambda d: assign(base(d)["unet"], "up_transformer_layers", [10**9, 1, 0]), "0 to 64"),
    "a width below 0": (lambda d: assign(base(d)["unet"]["block_out_channels"], 1, -128), "block_out_channels"),
    "one level less": (lambda d: base(d)["unet"]["heads"].pop(), "heads has 2 numbers for 3 levels"),
    "no levels": (
        lambda d: base(d)["unet"].update(
            block_out_channels=[], transformer_layers=[], up_transformer_layers=[], heads=[]
        ),
        "0 levels",
    ),
    "a VAE of another depth": (lambda d: d["models"]["vae"]["block_out_channels"].pop(), "it must be 4"),
    "latents of another depth": (
        deeper_latents,
        "latents have 8",
    ),
    "no scaling": (lambda d: assign(d["models"]["vae"], "scaling_factor", 0), "scaling_factor is 0"),
    "endless scaling": (lambda d: assign(d["models"]["vae"], "scaling_factor", "inf"), "scaling_factor is inf"),
    "an integer that no float holds": (lambda d: assign(d["models"]["vae"], "scaling_factor", 10**400), "float"),
    "a refiner alone": (lambda d: d["models"]["denoisers"].pop("base"), "denoisers are"),
    "a base that calls itself refiner": (lambda d: assign(base(d), "kind", "refiner"), "kind is 'refiner'"),
    "encoders the wrong way round": (lambda d: base(d)["text_encoders"].reverse(), "pooled"),
    "an encoder twice": (lambda d: base(d)["text_encoders"].append("text_encoder"), "text_encoders are"),
    "an encoder that is not there": (lambda d: assign(base(d)["text_encoders"], 0, "x"), "text_encoders are"),
    "an end beyond the words": (
        lambda d: assign(d["models"]["text_encoders"]["text_encoder"], "eos_token_id", 9999),
        "eos_token_id is 9999",
    ),
    "text of another width": (lambda d: assign(base(d)["unet"], "cross_attention_dim", 321), "give 320"),
    "a component too few": (lambda d: d["components"].pop("vae_decoder"), "lacks \\['vae_decoder'\\]"),
    "a component too many": (lambda d: assign(d["components"], "x", part(d)), "has \\['x'\\]"),
    "a tokenizer too few": (lambda d: d["tokenizers"].pop("tokenizer"), "tokenizers lacks"),
    "another role": (lambda d: assign(part(d)["spec"], "role", "vae_decoder"), "spec.role is vae_decoder"),
    "another name": (lambda d: assign(part(d)["spec"]["inputs"][0], "name", "x"), r"spec.inputs\[0\] is"),
    "another type": (lambda d: assign(part(d)["spec"]["inputs"][0], "dtype", "float99"), r"spec.inputs\[0\] is"),
    "another shape": (lambda d: assign(part(d)["spec"]["outputs"][0]["shape"], 1, 5), r"spec.outputs\[0\] is"),
    "an input too few": (lambda d: part(d)["spec"]["inputs"].pop(), r"spec.inputs\[23\] is None"),
    "another component's files": (
        lambda d: part(d).update(
            {key: part(d, "refiner/unet")[key] for key in ("files", "weight_bytes", "int8_bytes")}
        ),
        "it must lie in base/unet/",
    ),
    "another component's sample": (
        lambda d: assign(part(d), "sample", part(d, "refiner/unet")["sample"]),
        "it must lie in base/unet/",
    ),
    "tokenizers exchanged": (lambda d: swap(d["tokenizers"], "tokenizer", "tokenizer_2"), "it must lie in tokenizer"),
    "a file twice": (lambda d: d["tokenizers"]["tokenizer"].append(d["tokenizers"]["tokenizer"][0]), "named once"),
    "a file that is not counted": (lambda d: part(d)["files"].remove(plain_graph(d)), "weight_bytes is"),
    "no files": (lambda d: part(d).update(files=[], weight_bytes=0), "its 0 files"),
    "a hash that is none": (lambda d: assign(part(d)["sample"], "sha256", "x"), "sha256 or size"),
    "a size below 0": (lambda d: assign(part(d)["sample"], "size", -1), "sha256 or size"),
    "a term of nothing known": (lambda d: assign(part(d)["activation"]["terms"], "heads*pixels", 1.0), "heads"),
    "a term of a number": (lambda d: assign(part(d)["activation"]["terms"], "1*pixels", 1.0), "products of"),
    "a term of too many": (lambda d: assign(part(d)["activation"]["terms"], "*".join(["pixels"] * 99), 1.0), "prod"),
    "memory without end": (lambda d: assign(part(d)["activation"]["terms"], "batch", 1e308), "1e\\+308"),
    "memory below nothing": (lambda d: assign(part(d)["activation"], "dequantized_bytes", -1), "dequantized_bytes"),
    "a limit that allows all": (lambda d: assign(part(d), "max_relative_error", "inf"), "max_relative_error"),
    "exact with no threads": (lambda d: assign(part(d), "exact_threads", 0), "exact_threads is 0"),
    "a layer with two formats": (lambda d: assign(part(d), "formats", {"w8": ["a"], "w4": ["a"]}), "formats name 2"),
    "half of what bits cost": (lambda d: assign(part(d), "more_bits", {"layers": 1.0}), "more_bits is"),
    "halved without end": (lambda d: assign(part(d), "halvings", {"conv": 999}), "halvings are"),
    "no segments": (lambda d: assign(part(d), "streaming", streaming(segments=[])), "streaming.segments are"),
    "a segment that is no file": (
        lambda d: assign(part(d), "streaming", streaming(segments=segments(("../x.onnx", 0, 1)))),
        "each must be a file of the component",
    ),
    "a segment twice": (
        lambda d: assign(part(d), "streaming", streaming(segments=segments(*[("model.onnx", 0, 1)] * 2))),
        "each must be a file of the component, once",
    ),
    "weights before their file": (
        lambda d: assign(part(d), "streaming", streaming(segments=segments(("model.onnx", -1, 1)))),
        "1 bytes of weights at -1",
    ),
    "weights behind their file": (
        lambda d: assign(part(d), "streaming", streaming(segments=segments(("model.onnx", 1, 1 << 43)))),
        "beyond the component's",
    ),
    "carried without end": (
        lambda d: assign(part(d), "streaming", streaming(carried={"terms": {"1": 1e308}, "dequantized_bytes": 0})),
        "streaming.carried.terms.1 is 1e\\+308",
    ),
    "sizes that nobody is told": (lambda d: assign(d["models"], "family", "sd15"), "has no refiner"),
    "a family without its sizes": (lambda d: assign(base(d)["unet"], "size_ids", None), "size_ids is None"),
    "sizes of no width": (lambda d: assign(base(d)["unet"], "addition_time_embed_dim", 0), "size_ids is size_crop"),
    "depths of other layers": (
        lambda d: assign(base(d)["unet"]["transformer_layers"], 1, [1] * 40),
        "has 40 numbers for a level of",
    ),
    "colours of other channels": (lambda d: assign(d["models"], "latent_colours", [[0, 0, 0]] * 4), "4 rows"),
    "colours without end": (
        lambda d: assign(d["models"], "latent_colours", [[0, 0, "inf"]] * 5),
        "not finite",
    ),
    "a tiny decoder of other latents": (
        lambda d: assign(d["models"], "tiny_decoder", {"latent_channels": 16}),
        "tiny_decoder takes 16 channels and grows 8-fold, the VAE 4",
    ),
    "figures of nobody": (lambda d: assign(part(d), "quality_of", "x"), "quality_of is 'x'"),
}


def test_segments_that_agree_are_taken() -> None:
    data = json.loads(TEXT)
    part(data)["streaming"] = streaming()
    found = Manifest.from_json(sealed(data)).components["base/unet"].streaming
    assert found is not None
    assert found.segments[0].file == "model.onnx"
    assert Manifest.from_json(TEXT).components["base/unet"].streaming is None, "engines of before have none"


@pytest.mark.parametrize("name", REFUSED)
def test_a_contradiction_is_named(name: str) -> None:
    change, match = REFUSED[name]
    data = json.loads(TEXT)
    change(data)
    with pytest.raises(IntegrityError, match=match) as caught:
        Manifest.from_json(sealed(data))
    assert "build the engine again" in str(caught.value) or "must be" in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(("key", "value"), [("family", "flux"), ("num_train_timesteps", 1 << 63), ("beta_end", 7)])
def test_what_this_release_does_not_run_is_incompatible(key: str, value: object) -> None:
    data = json.loads(TEXT)
    (data["models"] if key == "family" else base(data)["scheduler"])[key] = value
    with pytest.raises(IncompatibleError):
        Manifest.from_json(sealed(data))


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": "\\ud800"}', f'{{"a": {"9" * 5000}}}', '"sha256"', "3",
     '{"a": ' + "[" * 900 + "]" * 900 + "}", '{"sha256": 1}'],
)  # fmt: skip
def test_json_that_no_engine_has_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"engine\.json"):
        Manifest.from_json(text)


@pytest.mark.parametrize("depth", [100, 200, 300])
def test_deep_nesting_is_refused_with_its_digest(depth: int) -> None:
    value: Any = 3
    for _ in range(depth):
        value = [value]
    with pytest.raises((IntegrityError, IncompatibleError)):
        Manifest.from_json(sealed({**json.loads(TEXT), "format": value}))


def test_a_description_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(" " * (manifest.MOST_BYTES + 1))
    with pytest.raises(IntegrityError, match="bytes"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (UNetArchitecture, bounds.UNET),
        (TextEncoderArchitecture, bounds.TEXT_ENCODER),
        (VaeArchitecture, bounds.VAE),
        (TinyDecoderArchitecture, tiny.BOUNDS),
    ],
)
def test_every_number_has_its_bounds(kind: Any, table: bounds.Bounds) -> None:
    numbers = {f.name for f in dataclasses.fields(kind) if f.type in (int, float, tuple[int, ...], Depths)}
    assert numbers == set(table)


def copied(folder: Path) -> Path:
    """The miniature, to be changed."""
    for file in (path for path in FOLDER.rglob("*") if path.is_file()):
        place = folder / file.relative_to(FOLDER)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return folder


def outcome_of(folder: Path, picture: np.ndarray | None, places: list[str]) -> str:
    """What loading, planning and, where one is expected, a picture come to: a typed error's name, or no error."""
    try:
        with Pipeline.load(folder, threads=1) as pipe:
            assert math.isfinite(pipe.plan(**CALL).peak_bytes)
            pipe.plan("a red apple")
            if picture is None:
                return "opened"
            same = np.array_equal(pipe(**CALL, output_type="np").images, picture)
            assert same or any(name in place for name in FREE for place in places)
            return "pictured"
    except (IntegrityError, IncompatibleError, NumericError) as error:
        return type(error).__name__ if len(str(error)) < 1000 else f"{len(str(error))} characters"


def test_an_unknown_runner_is_named_in_short(tmp_path: Path) -> None:
    folder = copied(tmp_path / "engine")
    data = json.loads(TEXT)
    part(data)["runner"] = "x" * 100_000
    (folder / FILE_NAME).write_text(sealed(data))
    with pytest.raises(
        IncompatibleError, match="this release has ort, ort_bands, openvino, openvino_bands, tensorrt"
    ) as caught:
        Pipeline.load(folder)
    assert len(str(caught.value)) < 300


def test_a_graph_that_is_not_among_the_files_is_missed_before_it_is_opened(tmp_path: Path) -> None:
    folder = copied(tmp_path / "engine")
    data = json.loads(TEXT)
    vae = part(data, "vae_decoder")
    vae["files"] = [file for file in vae["files"] if file["path"].endswith(".data")]
    vae["weight_bytes"] = vae["files"][0]["size"]
    (folder / FILE_NAME).write_text(sealed(data))
    with Pipeline.load(folder, threads=1) as pipe, pytest.raises(IntegrityError, match=r"no model\.onnx beside"):
        pipe(**CALL)


def test_mutations_are_refused_or_harmless(tmp_path: Path) -> None:
    """Drawn with fixed seeds; a few of those that open make a picture."""
    folder = copied(tmp_path / "engine")
    with Pipeline.load(folder, threads=1) as pipe:
        picture = pipe(**CALL, output_type="np").images
    outcomes: list[str] = []
    for seed in range(200):
        text, places = mutated(TEXT, seed)
        (folder / FILE_NAME).write_text(text)
        begun = time.process_time()
        try:
            outcomes.append(outcome_of(folder, picture if seed % 4 == 0 else None, places))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {places}") from error
        assert time.process_time() - begun < 60, f"seed {seed}: {places}"
    assert set(outcomes) <= {"IntegrityError", "IncompatibleError", "NumericError", "opened", "pictured"}
    assert outcomes.count("IntegrityError") > 100
    assert outcomes.count("pictured") > 3
