"""What the benchmark says of the models' insides."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketxl.export.miniature.autoencoder import autoencoder
from pocketxl.export.miniature.held_out import noise_prediction
from pocketxl.export.miniature.latents import SHARES, Bucket
from pocketxl.export.miniature.models import Miniature, base_unet, refiner_unet, text_encoder, text_encoder_2
from pocketxl.export.miniature.package import base_pipeline, refiner_pipeline
from pocketxl.export.miniature.text import load_tokenizer, tokenize
from pocketxl.export.miniature.tokenizer import write_tokenizers


def test_a_network_that_predicts_nothing_is_wrong_by_the_noise(toy: Miniature, tmp_path: Path) -> None:
    write_tokenizers(["owl"], tmp_path)
    tokenizers = (load_tokenizer(tmp_path / "tokenizer"), load_tokenizer(tmp_path / "tokenizer_2"))
    unets = base_unet(toy, 32), refiner_unet(toy, 32)
    for unet in unets:
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
    vae, encoder = autoencoder(32), text_encoder_2(toy)
    bucket = Bucket(
        latents=torch.randn(4, 4, 8, 8).half(),
        time_ids=torch.tensor([[32.0, 32, 0, 0, 32, 32]]).repeat(4, 1),
        scores=torch.full((4,), 6.0),
        tokens=tokenize(tokenizers[0], ["an owl"] * 4),
        tokens_2=tokenize(tokenizers[1], ["an owl"] * 4),
        captions=["an owl"] * 4,
    )
    records = noise_prediction(
        base_pipeline(unets[0], text_encoder(toy), encoder, vae, tokenizers),
        refiner_pipeline(unets[1], encoder, vae, tokenizers[1]),
        [bucket] * len(SHARES), batches=2, batch=64,
    )  # fmt: skip
    bands = ["last_fifth", "0_to_49", "50_to_99", "100_to_149", "150_to_199"]
    assert [record.case for record in records] == [
        f"{kind}_noise_{band}" for kind in ("base", "refiner") for band in bands
    ]
    for record in records:  # of 32 pictures with 256 numbers of unit variance each, at the least
        assert record.value == pytest.approx(1, abs=0.1)
    assert records[0].value == pytest.approx(sum(record.value for record in records[1:5]) / 4)
