"""What is timed: a forward of the base's U-Net, a decode of the VAE, or a whole picture from a text."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal

Kind = Literal["unet", "vae", "picture"]
GUIDED_STEPS: Final = 30
"""A picture of as many steps has guidance (and base and refiner, where one is given); with fewer it has neither."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table: what, and the picture's side in pixels. `steps`: of a picture."""

    name: str
    kind: Kind
    size: int
    steps: int = 0

    @property
    def guided(self) -> bool:
        """Whether a picture has guidance: two rows for each step."""
        return self.steps >= GUIDED_STEPS


CASES: Final = (
    Case(name="unet_512_b1", kind="unet", size=512),
    Case(name="unet_1024_b1", kind="unet", size=1024),
    Case(name="vae_decode_512", kind="vae", size=512),
    Case(name="vae_decode_1024", kind="vae", size=1024),
    Case(name="picture_512_4", kind="picture", size=512, steps=4),
    Case(name="picture_1024_4", kind="picture", size=1024, steps=4),
    Case(name="picture_1024_30", kind="picture", size=1024, steps=30),
)


def cases(names: Collection[str] = (), *, scale: int = 1) -> list[Case]:
    """Those of that name, or all; of pictures whose sides are `scale` times shorter."""
    return [replace(case, size=case.size // scale) for case in CASES if not names or case.name in names]
