"""What a build is made from: nothing is built that no engine may be."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import assemble
from pocketxl.export.job import models_of


def test_models_that_no_engine_may_have_are_refused(tiny_folders: dict[str, Path]) -> None:
    base = open_checkpoint(tiny_folders["base"])
    coarser = replace(base.vae_architecture, block_out_channels=(8, 16, 16, 16, 24))
    odd = replace(base, vae_architecture=coarser)
    with pytest.raises(IncompatibleError, match=r"base: no engine .* vae\.block_out_channels has 5 levels"):
        models_of(assemble(odd, None, lambda checkpoint, part: part))
