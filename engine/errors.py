"""The errors that PocketXL raises at its edge, and the exit code that each one becomes on the command line.

Each error is one sentence (or two) that names the value, what is allowed and the fix. Bad arguments are `RequestError`,
which is also a `ValueError`, so that callers who only know the standard library catch it too.
"""

from typing import ClassVar


class PocketXLError(Exception):
    """Base of every error that PocketXL raises on purpose; `exit_code` is the command line's exit status."""

    exit_code: ClassVar[int] = 1


class RequestError(PocketXLError, ValueError):
    """An argument is outside what is allowed: size, steps, sampler name, prompt syntax, unknown keyword."""

    exit_code = 2


class IncompatibleError(PocketXLError):
    """A valid file that does not fit: another model family, target, format version, or a missing package."""

    exit_code = 3


class MemoryBudgetError(PocketXLError):
    """The work does not fit into the memory budget, or the machine ran out of memory."""

    exit_code = 4


class StorageError(PocketXLError):
    """A file cannot be written or read: full disk, no permission, missing folder."""

    exit_code = 5


class IntegrityError(PocketXLError):
    """A file is not what it should be: missing, cut short, altered, or in a format that is refused (pickle)."""

    exit_code = 6


class QualityError(PocketXLError):
    """A build missed its recipe's quality threshold; the message names the worst layers."""

    exit_code = 7


class NumericError(PocketXLError):
    """NaN or Inf appeared in latents or picture; no picture is returned."""

    exit_code = 8
