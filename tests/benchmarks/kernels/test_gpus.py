"""Peaks are the printed ones, and plans are made for the card's own number of multiprocessors."""

import pytest

from benchmarks.kernels.gpus import GPUS

# Dense, in 1e12 operations a second, as printed: float16 with float32 and float16 sums, int8.
PRINTED = {
    "rtx-3090": (71, 142, 284),
    "rtx-4090": (165.2, 330.3, 660.6),
    "rtx-5090": (209.5, 419, 838),
    "h100": (989.4, 989.4, 1979),
}


@pytest.mark.parametrize("name", PRINTED)
def test_peaks_are_the_printed_ones(name: str) -> None:
    gpu = GPUS[name]
    found = (gpu.float16 / 1e12, gpu.float16_short / 1e12, gpu.int8 / 1e12)
    assert found == pytest.approx(PRINTED[name], rel=5e-3)


def test_a_smaller_card_of_a_generation_has_its_own_multiprocessors() -> None:
    small, large = GPUS["rtx-3060"].architecture, GPUS["rtx-3090"].architecture
    assert (small.sm, small.multiprocessors) == (86, 28)
    assert (large.sm, large.multiprocessors) == (86, 82)
    assert large.programs(164) == 164
    assert small.programs(164) == 56
