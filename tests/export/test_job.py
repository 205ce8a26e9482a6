"""What a build is made from: nothing is built that no engine may be."""

import json
import shutil
from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import assemble
from pocketxl.export.job import models_of


def test_models_that_no_engine_may_have_are_refused(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))
    config = folder / "unet/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 1024}))
    with pytest.raises(IncompatibleError, match=r"base: no engine .*base\.unet\.sample_size is 1024, 1 to 512"):
        models_of(assemble(open_checkpoint(folder), None, lambda checkpoint, part: part))
