"""Whatever is wrong with one value of a checkpoint's JSON, opening it is quick and ends in a typed error or in none."""

import itertools
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.progress import Silent
from pocketxl.export.graph.master import export_master
from pocketxl.export.job import bytes_needed, open_as, prepare, rehearse
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

from ...fixtures.checkpoints import tiny_vocabulary
from ...fixtures.mutations import mutations
from ...fixtures.original_layout import write_shards

COUNT = int(os.environ.get("POCKETXL_MUTATIONS", "300"))
SEED = int(os.environ.get("POCKETXL_MUTATIONS_SEED", "0"))
MOST_SECONDS, MOST_BYTES = 60.0, 500 << 20  # what hangs, on any machine
ALLOWED = (IncompatibleError, IntegrityError)


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A base whose U-Net is in shards and one of whose tokenizers says everything in tokenizer.json."""
    folder = Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = sorted(tensors)
    write_shards(file.parent, file.stem, ({n: tensors[n] for n in part} for part in (names[::2], names[1::2])))
    tokenizer = folder / "tokenizer_2"
    (tokenizer / "vocab.json").unlink()
    (tokenizer / "merges.txt").unlink()
    vocabulary, merges = tiny_vocabulary()
    added = [{"id": vocabulary.pop(token), "content": token} for token in ("<|startoftext|>", "<|endoftext|>")]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    (tokenizer / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": model}))
    return folder


def prepared(folder: Path, traced: set[object]) -> None:
    """All that a build does before it reads weights; graphs that were traced before are not traced again."""
    recipe = RECIPES["int8"]
    base = open_as(folder, "base", None)
    job = prepare(base, None, target=find_target("cpu"), recipe=recipe, calibration_size=None, progress=Silent())
    rehearse(job)
    bytes_needed(job)
    for name, component in job.assembly.components.items():
        if component.configuration not in traced:
            export_master(name, component.module, component.spec, dtype=torch.float32)
        if name != "base/conditioner":  # which has the U-Net's
            traced.add(component.configuration)


def peak_bytes() -> int:
    """The most memory that this process held since `forget_peak`."""
    return 1024 * int(next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x).split()[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def test_mutated_json_ends_in_a_typed_error(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    traced: set[object] = set()
    prepared(folder, traced)
    measures = Path("/proc/self/clear_refs").exists()
    failures = []
    for mutation in itertools.islice(mutations(folder, SEED), COUNT):
        file = folder / mutation.file
        before = file.read_bytes()
        file.write_text(mutation.text, encoding="utf-8", errors="surrogatepass")
        if measures:
            forget_peak()
        floor, start = (peak_bytes() if measures else 0), time.process_time()
        try:
            prepared(folder, traced)
        except ALLOWED as error:
            if str(error).count("\n") or len(str(error)) > 2000:
                failures.append(f"{mutation.what}: a message of {len(str(error))} characters")
        except Exception as error:  # noqa: BLE001 - every one of them is a finding
            failures.append(f"{mutation.what}: {type(error).__name__}: {str(error)[:200]}")
        seconds, grown = time.process_time() - start, (peak_bytes() if measures else 0) - floor
        if seconds > MOST_SECONDS or grown > MOST_BYTES:
            failures.append(f"{mutation.what}: {seconds:.1f} s, {grown >> 20} MiB")
        file.write_bytes(before)
    assert not failures, "\n".join(failures)
