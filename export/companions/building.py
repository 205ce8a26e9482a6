"""What every build of something beside an engine is asked, checked once, and how it goes on from there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypedDict

from ...engine.errors import IncompatibleError
from ...engine.progress import Progress, Silent
from ...engine.request.limits import integer
from ..build import BuildReport, build_job
from ..checkpoint.open import Checkpoint
from ..components import Assembly
from ..job import calibration_size_of, job_of
from ..quantize.recipes import Recipe, find_recipe
from ..target import Target
from ..targets import find_target
from ..targets.check import check
from . import TARGETS


class BuildOptions(TypedDict, total=False):
    """How a build goes, as in `build`; layers to keep have names such as `control/unet:conv_in`."""

    target: str
    recipe: str | None
    keep: Sequence[str]
    strict: bool
    force: bool
    threads: int | None
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class Building:
    """The same, checked and looked up."""

    target: Target
    recipe: Recipe
    keep: Sequence[str] = ()
    force: bool = False
    threads: int | None = None
    progress: Progress = field(default_factory=Silent)

    @classmethod
    def of(
        cls,
        what: str,
        *,
        target: str = "cpu",
        recipe: str | None = None,
        keep: Sequence[str] = (),
        strict: bool = False,
        force: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """`what`: in words and several, for messages. Raises `IncompatibleError` and `RequestError`."""
        if threads is not None:
            integer("threads", threads)
        if target not in TARGETS:
            raise IncompatibleError(f"{what} are built for {', '.join(TARGETS)} so far, not for {target}")
        chosen = find_target(target)
        asked = find_recipe(recipe or chosen.default_recipe)
        if strict:
            asked = replace(asked, ladder={})
        check(chosen, asked)
        return cls(target=chosen, recipe=asked, keep=keep, force=force, threads=threads, progress=progress or Silent())

    def build(
        self, assembly: Assembly, base: Checkpoint, destination: Path, calibration_size: int | None = None
    ) -> BuildReport:
        """Make the folder. `base`: what it is for. Raises as `build` does."""
        files = {name: base.tokenizer_files(name) for name in ("tokenizer", "tokenizer_2")}
        return self._build(assembly, files, calibration_size_of(base, calibration_size), destination)

    def build_without_base(self, assembly: Assembly, destination: Path) -> BuildReport:
        """The same of what no base is needed for, and no run of one."""
        return self._build(assembly, {}, 0, destination)

    def _build(
        self, assembly: Assembly, files: Mapping[str, Mapping[str, bytes]], size: int, destination: Path
    ) -> BuildReport:
        job = job_of(
            assembly, files, size,
            target=self.target, machine=self.target.machine(), recipe=self.recipe, keep=self.keep,
        )  # fmt: skip
        return build_job(job, destination, force=self.force, threads=self.threads, progress=self.progress)
