"""How a package that is not here is installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import IncompatibleError


def install_advice(extra: str) -> str:
    """The end of a message about a missing package: how the extra that brings it is installed.

    PocketXL is on no package index yet, so the name alone would find nothing, or somebody else's package.
    """
    return f"install it in a checkout of PocketXL's source with: pip install -e '.[{extra}]'"


@contextmanager
def needing(package: str, purpose: str, extra: str = "cpu") -> Iterator[None]:
    """Around the import of an optional package: where it is missing, `IncompatibleError` says for what and how."""
    try:
        yield
    except ImportError as error:
        raise IncompatibleError(f"{purpose} needs the package {package}; {install_advice(extra)}") from error
