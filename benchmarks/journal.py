"""Records that are kept as they come: whoever is killed loses nothing that was measured."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from .report import Record, document


class Journal:
    """Holds the records of a `benchmark`; after each, `path` is the whole JSON object so far.

    `extra`: of its environment.
    """

    def __init__(self, benchmark: str, path: Path | None, extra: Mapping[str, object]) -> None:
        self.benchmark = benchmark
        self.records: list[Record] = []
        self.notes: list[str] = []
        self.extra = {**extra, "notes": self.notes}
        self._path = path

    def add(self, case: str, system: str, metric: str, value: float, unit: str) -> None:
        """One figure."""
        self.records.append(Record(case=case, system=system, metric=metric, value=value, unit=unit))
        sys.stderr.write(f"{case} {system} {metric}: {value:.6g} {unit}\n")
        self._keep()

    def note(self, text: str) -> None:
        """What was left out, and why."""
        self.notes.append(text)
        sys.stderr.write(f"{text}\n")
        self._keep()

    def _keep(self) -> None:
        if self._path is not None:
            aside = self._path.with_name(f"{self._path.name}.part")
            aside.write_text(
                json.dumps(document(self.benchmark, self.records, extra=self.extra)) + "\n", encoding="utf-8"
            )
            aside.replace(self._path)
