"""`pocketxl doctor`: what this machine is, what can be built and run on it, and what mends it where it cannot."""

import argparse
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from textwrap import wrap

from ..doctor.abilities import NEEDS, Ability, abilities
from ..doctor.machine import Gpu, Host, gpu, host
from ..doctor.packages import Package, packages
from ..memory.sizes import format_bytes
from .base import Command, emit, say

COLUMN = 17
WIDTH = 104


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    machine, card = host(), gpu()
    able = abilities(card)
    extras = dict.fromkeys(extra for deeds in NEEDS.values() for needed in deeds.values() for extra in needed)
    known = {package.name: package for extra in extras for package in packages(extra)}
    ours = metadata.version("pocketxl")
    if args.json:
        emit(
            "doctor", pocketxl=ours, python=platform.python_version(), system=platform.platform(),
            host=asdict(machine),
            gpu=asdict(card) if isinstance(card, Gpu) else None, gpu_problem=card if isinstance(card, str) else None,
            packages=[asdict(package) for package in known.values()],
            abilities=[{**asdict(ability), "possible": ability.possible} for ability in able],
        )  # fmt: skip
        return 0
    _line("pocketxl", f"{ours}, Python {platform.python_version()}, {platform.system()} on {platform.machine()}")
    _line("processor", machine.processor)
    _line("threads", f"{machine.cores} ({machine.cores_reason})")
    _line("memory", _memory(machine))
    _line("gpu", _card(card))
    _line("packages", _installed(known.values()))
    say("")
    said: dict[str, str] = {}
    for ability in able:
        name = f"{ability.target} {ability.deed}"
        before = " and ".join(dict.fromkeys(said[fix] for fix in ability.fixes if fix in said))
        _line(name, _able(ability, card) + (f", as for {before}" if before else ""))
        for fix in ability.fixes:
            if fix not in said:
                _line("", fix)
                said[fix] = name
    return 0


def _line(name: str, text: str) -> None:
    wrapped = wrap(text, WIDTH - COLUMN, break_long_words=False, break_on_hyphens=False)
    say("\n".join(f"{'' if i else name:<{COLUMN}}{line}" for i, line in enumerate(wrapped)), lines=True)


def _memory(machine: Host) -> str:
    if machine.memory_bytes is None:
        return "the system does not tell"
    free = "" if machine.free_bytes is None else f", {format_bytes(machine.free_bytes)} free"
    return f"{format_bytes(machine.memory_bytes)}{free}"


def _card(card: Gpu | str) -> str:
    if isinstance(card, str):
        return "none that can be used"
    return (
        f"{card.name}, compute capability {card.compute_capability}, {format_bytes(card.memory_bytes)}, "
        f"{format_bytes(card.free_bytes)} free; driver {card.driver or 'unknown'}, CUDA {card.cuda}"
    )


def _installed(known: Iterable[Package]) -> str:
    here = [f"{package.name} {package.version}" for package in known if package.version is not None]
    return ", ".join(here)


def _able(ability: Ability, card: Gpu | str) -> str:
    if not ability.possible:
        return "no"
    own = ability.target == "rtx" and ability.deed == "build" and isinstance(card, Gpu)
    return f"yes (for this card: --target {card.target})" if own and isinstance(card, Gpu) else "yes"


command = Command(
    help="show what this machine is, what can be built and run on it, and the fix for what is missing",
    example="pocketxl doctor",
    configure=_configure,
    run=_run,
)
