"""What an engine is assembled from: which components base and refiner share."""

import json
import shutil
from pathlib import Path

from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import Assembly, assemble


def assembled(base: Path, refiner: Path) -> Assembly:
    return assemble(open_checkpoint(base), open_checkpoint(refiner), lambda model, part: model.weights(part).digest())


def test_a_text_encoder_is_shared_where_weights_and_configuration_are_equal(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    assert assembled(tiny_folders["base"], tiny_folders["refiner"]).text_encoders["refiner"] == ("text_encoder_2",)
    refiner = Path(shutil.copytree(tiny_folders["refiner"], tmp_path / "refiner"))
    config = refiner / "text_encoder_2/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-3}))
    own = assembled(tiny_folders["base"], refiner)
    assert own.text_encoders["refiner"] == ("refiner/text_encoder_2",)
    assert own.components["refiner/text_encoder_2"].configuration.layer_norm_eps == 1e-3
