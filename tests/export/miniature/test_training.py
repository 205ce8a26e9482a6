"""Training can stop anywhere and go on as if it had not; what it learns with is what the pipelines do."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketxl.export.miniature.batches import Batch, draw_batch
from pocketxl.export.miniature.budget import Budget
from pocketxl.export.miniature.latents import SHARES, Bucket
from pocketxl.export.miniature.models import Miniature, base_unet, refiner_unet, text_encoder, text_encoder_2
from pocketxl.export.miniature.noise import (
    EVEN,
    add_noise,
    alphas_cumprod,
    min_snr_weight,
    noise_ratio,
    stratified_timesteps,
)
from pocketxl.export.miniature.refiner import RefinerLoss, start_from_base
from pocketxl.export.miniature.sdxl_base import BaseLoss, plain_attention, predict_base
from pocketxl.export.miniature.text import padding_mask
from pocketxl.export.miniature.trainer import Trainer, TrainingSettings, step_generator

END = 599


def _modules(toy: Miniature) -> nn.ModuleDict:
    torch.manual_seed(0)
    modules = nn.ModuleDict(
        {"unet": base_unet(toy, 32), "text_encoder": text_encoder(toy), "text_encoder_2": text_encoder_2(toy)}
    )
    plain_attention(modules)
    return modules


@pytest.fixture
def data() -> tuple[Bucket, ...]:
    """Random latents; captions of five tokens."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for _ in SHARES:
        tokens = torch.full((4, 77), END, dtype=torch.int16)
        tokens[:, :5] = torch.randint(1, 500, (4, 5), generator=generator).short()
        tokens_2 = tokens.clone()
        tokens_2[:, 6:] = 0
        result.append(
            Bucket(
                latents=torch.randn(4, 4, 8, 8, generator=generator).half(),
                time_ids=torch.tensor([[32.0, 32, 0, 0, 32, 32]]).repeat(4, 1),
                scores=torch.full((4,), 6.0),
                tokens=tokens,
                tokens_2=tokens_2,
                captions=["a thing"] * 4,
            )
        )
    return tuple(result)


def _train(toy: Miniature, data: tuple[Bucket, ...], file: Path, *, stop_after: int = 0, workers: int = 1) -> Trainer:
    modules = _modules(toy)
    loss = BaseLoss(modules, data, batch=2, seed=3, device=torch.device("cpu"))
    settings = TrainingSettings(batch=2, warm_up=2, workers=workers)
    trainer = Trainer(modules, loss, Budget(steps=4), settings, file, after_step=loss.after_step)
    if stop_after:
        done = trainer.after_step
        assert done is not None

        def stop(progress: float) -> None:
            done(progress)
            trainer._stop = trainer.step + 1 == stop_after

        trainer.after_step = stop
    finished = trainer.run()
    assert finished is (stop_after == 0)
    return trainer


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    toy: Miniature, data: tuple[Bucket, ...], tmp_path: Path
) -> None:
    whole = _train(toy, data, tmp_path / "whole.pt")
    _train(toy, data, tmp_path / "parts.pt", stop_after=2)
    resumed = _train(toy, data, tmp_path / "parts.pt")
    assert resumed.step == whole.step == 4
    for one, other in zip(whole.average, resumed.average, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_no_minutes_keep_the_weights(toy: Miniature, data: tuple[Bucket, ...], tmp_path: Path) -> None:
    modules = _modules(toy)
    before = [parameter.detach().clone() for parameter in modules.parameters()]
    loss = BaseLoss(modules, data, batch=2, seed=3, device=torch.device("cpu"))
    trainer = Trainer(
        modules, loss, Budget(minutes=0), TrainingSettings(batch=2), tmp_path / "kept.pt", None, loss.after_step
    )
    assert trainer.run()
    trainer.finish()
    assert trainer.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, modules.parameters(), strict=True))


def test_workers_average_their_gradients(toy: Miniature, data: tuple[Bucket, ...], tmp_path: Path) -> None:
    trainer = _train(toy, data, tmp_path / "workers.pt", workers=2)
    assert trainer.samples == 4 * 2 * 2


def test_averaged_weights_are_put_back(toy: Miniature, data: tuple[Bucket, ...], tmp_path: Path) -> None:
    trainer = _train(toy, data, tmp_path / "average.pt")
    before = [parameter.detach().clone() for parameter in trainer.modules.parameters()]
    with trainer.averaged():
        inside = [parameter.detach().clone() for parameter in trainer.modules.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(inside, trainer.average, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.modules.parameters(), strict=True))


def test_a_cut_context_stands_for_the_whole_one(toy: Miniature, data: tuple[Bucket, ...]) -> None:
    """Where all padding states are alike, cutting them changes nothing but rounding."""
    modules = _modules(toy).eval()
    batch = draw_batch(data, 2, EVEN, step_generator(0, 0), torch.device("cpu"), dropout=0.0)
    unet = modules["unet"]
    context = torch.randn(2, 77, 40)
    context[:, 8:] = context[:, 7:8]
    added = {"text_embeds": torch.randn(2, 24), "time_ids": batch.time_ids}
    with torch.no_grad():
        whole = unet(batch.noisy, batch.timesteps, encoder_hidden_states=context, added_cond_kwargs=added).sample
        cut = unet(
            batch.noisy,
            batch.timesteps,
            encoder_hidden_states=context[:, :8],
            encoder_attention_mask=padding_mask(2, 8),
            added_cond_kwargs=added,
        ).sample
    torch.testing.assert_close(whole, cut, rtol=1e-3, atol=1e-3)


def test_a_dropped_caption_is_zeros_as_in_the_pipeline(toy: Miniature, data: tuple[Bucket, ...]) -> None:
    modules = _modules(toy).eval()
    batch = draw_batch(data, 2, EVEN, step_generator(0, 0), torch.device("cpu"), dropout=1.0)
    with torch.no_grad():
        dropped = predict_base(modules, batch)
        zeros = modules["unet"](
            batch.noisy,
            batch.timesteps,
            encoder_hidden_states=torch.zeros(2, 77, 40),
            added_cond_kwargs={"text_embeds": torch.zeros(2, 24), "time_ids": batch.time_ids},
        ).sample
    torch.testing.assert_close(dropped, zeros)


def test_the_refiner_learns(toy: Miniature, data: tuple[Bucket, ...]) -> None:
    modules = nn.ModuleDict({"unet": refiner_unet(toy, 32)})
    encoder = text_encoder_2(toy)
    loss = RefinerLoss(
        modules, encoder, torch.full((77,), END), data, batch=2, seed=0, device=torch.device("cpu")
    )(0, 0.0)  # fmt: skip
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in modules.parameters())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_the_refiner_s_levels_count_by_their_noise(
    toy: Miniature, data: tuple[Bucket, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions that are wrong in the noisier half of the levels cost that half's share of the noise ratios."""

    def wrong_when_noisy(modules: object, encoder: object, empty: object, batch: Batch) -> torch.Tensor:
        return batch.noise + (batch.timesteps >= 125).view(-1, 1, 1, 1)

    monkeypatch.setattr("pocketxl.export.miniature.refiner.predict_refiner", wrong_when_noisy)
    loss = RefinerLoss(
        nn.ModuleDict(), text_encoder_2(toy), torch.full((77,), END), data,
        batch=250, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    ratio = noise_ratio(alphas_cumprod()[:250])
    # Each of the 250 levels is drawn once, so what is left is rounding to float32.
    assert loss(0, 0.0).item() == pytest.approx(float(ratio[125:].sum() / ratio.sum()), rel=1e-5)
    assert noise_ratio(torch.tensor([0.5, 0.8])).tolist() == pytest.approx([1, 0.5])


def test_windows_are_drawn_more_often(data: tuple[Bucket, ...]) -> None:
    for bucket in data:
        bucket.time_ids[0, 2] = 8
    crops = [
        draw_batch(data, 100, EVEN, step_generator(0, step), torch.device("cpu")).time_ids[:, 2] for step in range(20)
    ]
    share = float((torch.cat(crops) == 8).float().mean())
    assert share == pytest.approx(2.5 / 5.5, abs=0.04)  # of four rows one is a window; even draws would give a quarter


def test_the_schedule_is_sdxls() -> None:
    from pocketxl.export.miniature.models import scheduler

    torch.testing.assert_close(alphas_cumprod(), scheduler().alphas_cumprod, rtol=1e-5, atol=1e-7)


def test_noise_levels_cover_the_range() -> None:
    drawn = stratified_timesteps(100, EVEN, torch.Generator().manual_seed(0))
    assert (drawn // 10 == torch.arange(100)).all()


def test_noise_levels_keep_their_shares() -> None:
    drawn = stratified_timesteps(100, ((0.0, 0), (0.1, 200), (1.0, 1000)), torch.Generator().manual_seed(0))
    assert int((drawn < 200).sum()) == 10
    assert int((drawn < 600).sum()) == 55
    assert drawn.max() < 1000


def test_noise_keeps_its_share() -> None:
    signal, noise = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    assert add_noise(signal, noise, torch.tensor([0.25, 1.0])).flatten().tolist() == [0.5, 1.0]
    assert min_snr_weight(torch.tensor([0.5])).item() == pytest.approx(1.0)
    assert min_snr_weight(torch.tensor([10 / 11])).item() == pytest.approx(0.5)


def test_the_refiner_starts_from_what_it_shares_with_the_base(toy: Miniature) -> None:
    base, refiner = base_unet(toy, 32), refiner_unet(toy, 32)
    assert start_from_base(refiner, base, toy.text.width) > 40
    mine, theirs = refiner.state_dict(), base.state_dict()
    assert torch.equal(mine["conv_out.weight"], theirs["conv_out.weight"])
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(mine[key], theirs[key][:, toy.text.width :])
    pooled_and_ids = toy.text_2.width + 4 * toy.size_embedding
    name = "add_embedding.linear_1.weight"
    assert torch.equal(mine[name][:, :pooled_and_ids], theirs[name][:, :pooled_and_ids])
    assert not torch.equal(mine[name], theirs[name][:, : mine[name].shape[1]])
