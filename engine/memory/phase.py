"""One stage of a picture, as the memory plan sees it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of a picture: the component that must be loaded, and the arrays that the pipeline itself holds."""

    name: str
    component: str
    held_bytes: int
    """On the host: embeddings, latents, pictures."""
    constant_bytes: int = 0
    """Where the component computes: keys, values and time vectors."""
    beside: tuple[str, ...] = ()
    """Other components that must be loaded too: ControlNets run in turns with the U-Net."""

    @property
    def components(self) -> tuple[str, ...]:
        """All that must be loaded."""
        return (self.component, *self.beside)
