"""What a child process is told, and what it tells."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from .cases import Case, cases

Network = Literal["base", "refiner", "vae"]
Deed = Literal["prepare", "first", "run"]
MINIATURE: Final = Path(__file__).parents[2] / "export" / "miniature" / "weights"


class AbsentError(Exception):
    """A system that cannot be measured on a case here, and why."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Whose weights all systems have: diffusers' folders. `work`: where systems keep what they make of them."""

    base: Path
    refiner: Path | None
    work: Path
    threads: int
    scale: int = 1
    """How many times shorter the sides of the cases' pictures are."""

    def folder(self, network: Network) -> Path:
        """Of a network's configuration and weights."""
        if network == "refiner":
            if self.refiner is None:
                raise AbsentError("no refiner was given")
            return self.refiner / "unet"
        return self.base / ("vae" if network == "vae" else "unet")

    def networks(self, case: Case) -> list[Network]:
        """Those that a case takes."""
        if case.kind != "picture":
            return ["vae"] if case.kind == "vae" else ["base"]
        return ["base", "refiner", "vae"] if case.guided and self.refiner else ["base", "vae"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One child's work: `prepare` what a system needs on disk for a case, or `run` it and leave its result.

    `first`: run it without what earlier processes have kept for it.
    """

    deed: Deed
    system: str
    case: str
    model: Model

    @property
    def of(self) -> Case:
        """The case, at the model's scale."""
        return cases([self.case], scale=self.model.scale)[0]

    @property
    def result(self) -> Path:
        """The file that the result goes to."""
        return self.model.work / "results" / self.case / f"{self.system}.npy"

    def encode(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def decode(cls, text: str) -> Self:
        """The way back."""
        data: dict[str, Any] = json.loads(text)
        model = data.pop("model")
        paths = {key: None if model[key] is None else Path(model[key]) for key in ("base", "refiner", "work")}
        return cls(model=Model(**{**model, **paths}), **data)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a child tells. `seconds`: of a call, the median after a warm-up; of a picture, the whole, cold.

    `first_seconds`: the same of the first picture of a size, where a system keeps what it has compiled for that.
    """

    seconds: float
    load_seconds: float
    peak_rss_bytes: int
    calls: int
    first_seconds: float | None = None
