"""Names: ours, A1111's, and what an unknown one is told."""

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES, find_sampler, find_schedule


@pytest.mark.parametrize(
    ("spelling", "sampler", "schedule"),
    [
        ("euler", "euler", "default"),
        ("Euler", "euler", "default"),
        ("Euler a", "euler_a", "default"),
        ("Euler a Karras", "euler_a", "karras"),
        ("Heun", "heun", "default"),
        ("DPM++ 2M", "dpmpp_2m", "default"),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("dpm++ 2m sde exponential", "dpmpp_2m_sde", "exponential"),
        ("DPM++ SDE SGM Uniform", "dpmpp_sde", "sgm_uniform"),
        ("DPM++ 2M trailing", "dpmpp_2m", "sgm_uniform"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", "default"),
        ("UniPC", "unipc", "default"),
        ("DDIM", "ddim", "default"),
        ("LCM", "lcm", "default"),
        ("DPM++ 3M SDE Karras", "dpmpp_3m_sde", "karras"),
        ("dpm++ 3m sde align your steps", "dpmpp_3m_sde", "align_your_steps"),
        ("DPM++ 2S a", "dpmpp_2s_a", "default"),
        ("DPM++ 2S a KL Optimal", "dpmpp_2s_a", "kl_optimal"),
        ("Res Multistep Simple", "res_multistep", "simple"),
        ("ER SDE Beta", "er_sde", "beta"),
        ("TCD", "tcd", "default"),
        ("DDPM DDIM", "ddpm", "ddim_uniform"),
        # ComfyUI's names, and A1111's own beside its labels.
        ("dpmpp_2s_ancestral", "dpmpp_2s_a", "default"),
        ("euler_ancestral", "euler_a", "default"),
        ("uni_pc_bh2", "unipc", "default"),
        ("dpmpp_3m_sde_gpu", "dpmpp_3m_sde", "default"),
        ("k_dpmpp_2m_karras", "dpmpp_2m", "karras"),
    ],
)
def test_spellings(spelling: str, sampler: str, schedule: str) -> None:
    row, found = find_sampler(spelling)
    assert (row.name, found) == (sampler, schedule)


@pytest.mark.parametrize("spelling", ["karras", "Karras", "sgm_uniform", "SGM Uniform", "trailing", "Automatic"])
def test_schedule_spellings(spelling: str) -> None:
    assert find_sampler("euler", spelling)[1] in SCHEDULES


@pytest.mark.parametrize(
    ("spelling", "schedule"),
    [
        ("Normal", "normal"), ("Uniform", "normal"), ("simple", "simple"), ("Beta", "beta"),
        ("Align Your Steps", "align_your_steps"), ("AYS", "align_your_steps"), ("KL Optimal", "kl_optimal"),
        ("DDIM", "ddim_uniform"), ("ddim_uniform", "ddim_uniform"), ("SGMUniform", "sgm_uniform"),
        ("Polyexponential", "exponential"),
    ],
)  # fmt: skip
def test_names_of_other_programs(spelling: str, schedule: str) -> None:
    assert find_schedule(spelling) == schedule


def test_no_name_means_two_things() -> None:
    for row in SAMPLERS.values():
        for spelling in (row.name, row.label, *row.aliases):
            assert find_sampler(spelling) == (row, "default")


def test_every_label_finds_its_row_with_every_schedule() -> None:
    for row in SAMPLERS.values():
        for name, label in SCHEDULES.items():
            assert find_sampler(f"{row.label} {label}") == (row, name)


@pytest.mark.parametrize("name", ["plms", "", "dpm", "karras", None, 3])
def test_an_unknown_sampler_is_told_all_names(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        find_sampler(name)
    assert all(known in str(caught.value) for known in SAMPLERS)


def test_an_unknown_schedule_is_told_all_names() -> None:
    with pytest.raises(RequestError, match=r"'kerras'.*default, karras, .*align_your_steps.*, trailing"):
        find_sampler("euler", "kerras")


def test_two_schedules_are_refused() -> None:
    with pytest.raises(RequestError, match="one of them"):
        find_sampler("DPM++ 2M Karras", "exponential")
    assert find_sampler("DPM++ 2M Karras", "karras")[1] == "karras"
