"""SSIM against scikit-image's, and what it says of pictures whose likeness is known."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pocketxl.export.reference.similarity import WINDOW, ssim

from ...tolerances import SSIM_ABSOLUTE


def _pictures(n: int = 3, height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """Smooth shapes with some grain, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phase = rng.uniform(0, 6, (n, 1, 1, 3))
    waves = 0.5 + 0.4 * np.sin(9 * x[None, ..., None] + 5 * y[None, ..., None] ** 2 + phase)
    grained: np.ndarray = np.clip(waves + 0.03 * rng.standard_normal(waves.shape), 0, 1)
    return grained.astype(np.float32)


def _other(picture: np.ndarray, reference: np.ndarray) -> float:
    value: float = structural_similarity(
        picture,
        reference,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=1.0,
    )
    return value


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.3])
def test_scikit_image_finds_the_same(noise: float) -> None:
    references = _pictures()
    rng = np.random.default_rng(1)
    pictures = np.clip(references + noise * rng.standard_normal(references.shape), 0, 1).astype(np.float32)
    expected = [_other(*pair) for pair in zip(pictures.astype(np.float64), references.astype(np.float64), strict=True)]
    np.testing.assert_allclose(ssim(pictures, references), expected, rtol=0, atol=SSIM_ABSOLUTE)


def test_equal_pictures_are_at_one_and_inverted_ones_below_nought() -> None:
    pictures = _pictures()
    np.testing.assert_array_equal(ssim(pictures, pictures), 1.0)
    assert (ssim(pictures, 1 - pictures) < 0).all()


def test_structure_counts_more_than_level() -> None:
    """Of two changes with the same mean square, noise is worse than a shift of brightness."""
    pictures = 0.8 * _pictures()
    noise = np.random.default_rng(2).standard_normal(pictures.shape)
    shift = np.sqrt(np.mean((0.1 * noise) ** 2))
    assert (ssim(pictures + 0.1 * noise, pictures) < ssim(pictures + shift, pictures) - 0.1).all()


@pytest.mark.parametrize(("one", "other"), [((1, 40, 40, 3), (1, 40, 41, 3)), ((40, 40, 3), (40, 40, 3))])
def test_what_is_no_pair_of_pictures_is_refused(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n, H, W, C"):
        ssim(np.zeros(one), np.zeros(other))


def test_a_picture_below_the_window_is_refused() -> None:
    assert ssim(np.zeros((1, WINDOW, WINDOW, 3)), np.zeros((1, WINDOW, WINDOW, 3))) == 1
    with pytest.raises(ValueError, match=str(WINDOW)):
        ssim(np.zeros((1, WINDOW - 1, 40, 3)), np.zeros((1, WINDOW - 1, 40, 3)))
