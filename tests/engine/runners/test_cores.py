"""How many threads compute by default, on trees of /sys and /proc with the shapes of real machines."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.runners.cores import Processors, alike, available_cores, processors
from pocketxl.engine.runners.cores_linux import container_quota, cpu_list, linux_processors

CPU = "sys/devices/system/cpu"
Tree = Mapping[str, str]


def planted(root: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def siblings(*cores: str, name: str = "core_cpus_list") -> dict[str, str]:
    """Every hardware thread's list of those on its core."""
    return {f"{CPU}/cpu{number}/topology/{name}": core for core in cores for number in cpu_list(core)}


RYZEN_6_CORES = {f"{CPU}/online": "0-11", **siblings(*(f"{n},{n + 6}" for n in range(6)))}
CORE_I7_12700 = {
    f"{CPU}/online": "0-19",
    **siblings(*(f"{n}-{n + 1}" for n in range(0, 16, 2)), "16", "17", "18", "19"),
    "sys/devices/cpu_core/cpus": "0-15",
    "sys/devices/cpu_atom/cpus": "16-19",
}
PHONE_1_3_4 = {
    f"{CPU}/online": "0-7",
    **siblings(*map(str, range(8))),
    **{f"{CPU}/cpu{number}/cpu_capacity": size for number, size in enumerate(["325"] * 4 + ["828"] * 3 + ["1024"])},
}
BEFORE_LINUX_5_3 = {f"{CPU}/online": "0-7", **siblings("0,4", "1,5", "2,6", "3,7", name="thread_siblings_list")}


@pytest.mark.parametrize(("tree", "threads", "reason"), [
    (RYZEN_6_CORES, 6, "6 cores with 12 hardware threads"),
    (CORE_I7_12700, 8, "8 fast cores of 12 with 20 hardware threads"),
    (PHONE_1_3_4, 4, "4 fast cores of 8"),
    (BEFORE_LINUX_5_3, 4, "4 cores with 8 hardware threads"),
])  # fmt: skip
def test_fast_physical_cores(tmp_path: Path, tree: Tree, threads: int, reason: str) -> None:
    found = linux_processors(planted(tmp_path, tree), cpu_list(tree[f"{CPU}/online"]))
    assert (found.threads, found.reason) == (threads, reason)


@pytest.mark.parametrize(("tree", "allowed", "threads"), [
    (RYZEN_6_CORES, {0, 6}, 1),  # both are the same core
    (RYZEN_6_CORES, {0, 1, 2, 7}, 3),
    (CORE_I7_12700, {0, 1, 2, 3, 16, 17}, 2),
    (CORE_I7_12700, {16, 17, 18}, 3),  # all that is left is slow
    (PHONE_1_3_4, {0, 1, 2}, 3),
    (PHONE_1_3_4, {0, 4}, 1),
])  # fmt: skip
def test_an_affinity_counts_the_cores_that_it_leaves(
    tmp_path: Path, tree: Tree, allowed: set[int], threads: int
) -> None:
    found = linux_processors(planted(tmp_path, tree), allowed)
    assert found.threads == threads
    assert f"the affinity allows {len(allowed)} of " in found.reason


def test_what_is_not_told_is_a_core_for_each_hardware_thread(tmp_path: Path) -> None:
    """As in a sandbox without /sys."""
    assert linux_processors(tmp_path, {0, 1, 2}) == alike(3)
    broken = planted(tmp_path, {f"{CPU}/online": "?", **siblings("0"), f"{CPU}/cpu1/cpu_capacity": "much"})
    assert linux_processors(broken, {0, 1, 2}) == alike(3)


DOCKER_V2 = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}
SLICE_ABOVE = {
    "proc/self/cgroup": "0::/system.slice/pictures.service",
    "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
    "sys/fs/cgroup/system.slice/pictures.service/cpu.max": "max 100000",
}
BOTH_LEVELS = {**SLICE_ABOVE, "sys/fs/cgroup/system.slice/pictures.service/cpu.max": "50000 100000"}
DOCKER_V1 = {  # the path is the host's; what is mounted is the container's own group
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/4be1\n4:memory:/docker/4be1",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
}
V1_AND_V2 = {
    "proc/self/cgroup": "2:cpuacct:/\n1:cpu:/pod/a\n0::/",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/cpu/pod/a/cpu.cfs_quota_us": "100000",
    "sys/fs/cgroup/cpu/pod/a/cpu.cfs_period_us": "100000",
}
OUTSIDE = {"proc/self/cgroup": "0::/../../elsewhere", "sys/fs/cgroup/cpu.max": "400000 100000"}


@pytest.mark.parametrize(("tree", "quota"), [
    (DOCKER_V2, 1.5), (SLICE_ABOVE, 2.0), (BOTH_LEVELS, 0.5), (DOCKER_V1, 3.0), (V1_AND_V2, 1.0), (OUTSIDE, 4.0),
    ({}, None),
    ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
    ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "many 0"}, None),
    ({"sys/fs/cgroup/cpu.max": "100000 0"}, None),
])  # fmt: skip
def test_the_least_quota_of_all_levels(tmp_path: Path, tree: Tree, quota: float | None) -> None:
    assert container_quota(planted(tmp_path, tree)) == quota


@pytest.mark.parametrize(("quota", "threads"), [("50000", 1), ("150000", 2), ("600000", 6), ("900000", 6)])
def test_a_quota_is_rounded_up_and_makes_no_cores(tmp_path: Path, quota: str, threads: int) -> None:
    tree = {**RYZEN_6_CORES, "sys/fs/cgroup/cpu.max": f"{quota} 100000"}
    found = linux_processors(planted(tmp_path, tree), range(12))
    assert found.threads == threads
    assert found.reason == f"6 cores with 12 hardware threads, the container allows the time of {int(quota) / 1e5:.3g}"


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_of_processors(numbers: set[int]) -> None:
    assert cpu_list(",".join(map(str, sorted(numbers)))) == numbers
    assert cpu_list(f"{min(numbers)}-{max(numbers)}\n") == set(range(min(numbers), max(numbers) + 1))


@pytest.mark.parametrize("text", [None, "", "\n", "a-b", "1-", "-", "1,,2"])
def test_what_is_no_list_is_empty(text: str | None) -> None:
    assert cpu_list(text) == set()


@given(*[st.integers(1, 64)] * 4, st.one_of(st.none(), st.floats(0.01, 100)))
def test_at_least_one_thread_and_no_more_than_fast_cores(
    machine: int, allowed: int, cores: int, fast: int, quota: float | None
) -> None:
    found = Processors(machine=machine, allowed=allowed, cores=cores, fast=fast, quota=quota)
    assert 1 <= found.threads <= fast
    assert quota is None or found.threads < quota + 1


def test_this_machine() -> None:
    found = processors()
    assert 1 <= available_cores() == found.threads <= (os.cpu_count() or 1)
    assert found.cores <= found.allowed <= found.machine


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
def test_this_process_held_to_one_processor() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
