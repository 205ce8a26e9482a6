"""`engine.json`: what an engine folder holds, and the proof that it still holds it.

Every other file is recorded with its sha256 and size, and is read only after its hash matched, because engines are
code. `engine.json` itself carries the digest of its own canonical text: keys are sorted and there are no timestamps, so
that `cpu` engines built twice from equal parts are equal to the byte, on one machine and with one number of threads.
Others round differently: the reference run then gives other samples and figures, and a calibrated recipe other ranges
and weights. Engines for TensorRT for RTX are never equal to the byte (see `export.targets.rtx`).
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..architecture import Models
from ..companion import Companion
from ..errors import IncompatibleError, IntegrityError, StorageError
from ..specs import SPARSE, ComponentSpec
from .activation import ActivationModel as ActivationModel
from .checks import check
from .files import FileEntry, OnBytes, hash_file, is_litter, matched_path
from .openings import Openings
from .schema import decode, encode

FILE_NAME = "engine.json"
FORMAT = 3
MOST_BYTES = 1 << 21
"""Of `engine.json` itself; that of SDXL with its refiner has a tenth of a megabyte."""
_DIGEST = "sha256"
_REBUILD = "build the engine again with `pocketxl build`, or copy the folder again"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a component's graph in a file of its own; its weights lie in one piece in the component's own file."""

    file: str
    """Its name, beside the component's other files."""
    start: int
    """Where its weights begin in the weights' file, in bytes."""
    size: int
    """From there to the end of its last weight, in bytes."""


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """How a component runs in less memory: one segment after another.

    With its weights coming from the disk; or, where there is a `program`, over bands of rows.
    """

    segments: tuple[Segment, ...]
    """In running order; what one leaves and a later one takes has one name in both."""
    activation: ActivationModel
    """Working memory inside the segment that takes most, outputs included."""
    carried: ActivationModel
    """The most bytes that wait between two segments for later ones."""
    program: str = field(default="", metadata=SPARSE)
    """The file that says how segments run over bands of rows (`bands.read`); empty where they run once."""


@dataclass(frozen=True, kw_only=True)
class ComponentEntry:
    """One component: its edge, the runner that loads it, its files, sizes in bytes, and its parity figures."""

    spec: ComponentSpec
    runner: str
    """A kind in `engine.runners.BACK_ENDS`."""
    files: tuple[FileEntry, ...]
    weight_bytes: int
    """Of the files that are loaded: all of them, but of those for other GPU generations the largest alone."""
    activation: ActivationModel
    quality: Mapping[str, float] = field(default_factory=dict)
    """Against the unquantized reference: `relative_error`, `psnr_db`, …"""
    max_relative_error: float | None = None
    """The recipe's limit of `relative_error`, which `pocketxl check` holds it to; None where no build gave one."""
    sample: FileEntry | None = None
    """A call of the unquantized reference; see `folder.samples`."""
    int8_bytes: int = 0
    """Weights that are multiplied as int8, of `weight_bytes`; a processor without VNNI needs more memory for them."""
    exact_threads: int | None = None
    """The most threads with which it gives the same numbers as with one; None: any number."""
    quality_of: str = "engine"
    """What the figures were measured on: `engine`, these files, or `stand_in`, the same component in plain ONNX."""
    formats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """How numbers are stored and multiplied (`w8a8_dynamic`) → the layers that do it so, by their names in the
    checkpoint's form."""
    more_bits: Mapping[str, float] = field(default_factory=dict)
    """Of those that needed more than the recipe's own format: `layers`, `bytes` and `time` (a share) that it cost."""
    halvings: Mapping[str, int] = field(default_factory=dict)
    """Layer → how often its outputs are halved to stay in float16's range, and those that are added to them."""
    architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict, metadata=SPARSE)
    """Name of a file → GPU generations (`sm89`) that it was compiled for. Of those files one is loaded; see
    `folder.variants`."""
    ranges: Mapping[str, tuple[int, ...]] = field(default_factory=dict, metadata=SPARSE)
    """Symbol of the spec → the least and the most that its files take; what is not named has no such bounds."""
    key: str = field(default="", metadata=SPARSE)
    """What it was built from, as one digest (`export.job.component_keys`): another build takes it over by that."""
    streaming: Streaming | None = None
    """None: it runs as a whole only."""
    openings: Openings | None = field(default=None, metadata=SPARSE)
    """Its graphs that take adapters; None: it takes none."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `engine.json`."""

    format: int = FORMAT
    target: str
    recipe: str
    models: Models
    components: Mapping[str, ComponentEntry]
    tokenizers: Mapping[str, tuple[FileEntry, ...]]
    quality: Mapping[str, float] = field(default_factory=dict)
    """End to end: `psnr_db` of a short run against the unquantized reference, …"""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Library name → version of the machine that built it."""
    build_key: Mapping[str, str] = field(default_factory=dict)
    """What the build depended on, part by part; see `export.publish.keys`."""
    created_by: str = ""
    measured_on: str = ""
    """The device whose figures `quality` are; empty if the engine has never run."""
    companion: Companion | None = field(default=None, metadata=SPARSE)
    """What the folder holds if it is no engine; `models` are then those that it was built with."""

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file but `engine.json`, sorted by path; a file that components share is listed once."""
        samples = [c.sample for c in self.components.values() if c.sample is not None]
        groups = [*(c.files for c in self.components.values()), *self.tokenizers.values(), samples]
        return tuple(sorted({f for group in groups for f in group}, key=lambda f: f.path))

    @property
    def digest(self) -> str:
        """What the engine is, whatever its folder is called: the sha256 of its files' names and hashes, in hex."""
        return hashlib.sha256("".join(f"{f.path} {f.sha256}\n" for f in self.files).encode()).hexdigest()

    def strangers_in(self, folder: Path) -> tuple[str, ...]:
        """Paths of files below `folder` that are no part of the engine, sorted, without the system's own litter."""
        known = {FILE_NAME, *(entry.path for entry in self.files)}
        files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        present = {path.relative_to(folder).as_posix() for path in files if not is_litter(path.name)}
        return tuple(sorted(present - known))

    def to_json(self) -> str:
        """The canonical text of `engine.json`, its own digest included."""
        data = encode(self)
        return _canonical({**data, _DIGEST: _digest(data)})

    @classmethod
    def from_json(cls, text: str, *, where: str = FILE_NAME) -> Self:
        """Inverse of `to_json`. `IntegrityError` if it was altered, `IncompatibleError` if a newer release wrote it."""
        try:
            data = json.loads(text)
            digest = data.pop(_DIGEST, None) if isinstance(data, dict) else None
            # The text, not only the data: a changed blank or a doubled key is an alteration too.
            sound = digest == _digest(data) and _canonical({**data, _DIGEST: digest}) == text
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{where} is not the JSON of an engine ({error}); {_REBUILD}") from error
        if not sound:
            raise IntegrityError(f"{where} does not match its own digest, so it was altered or cut short; {_REBUILD}")
        version = data.get("format")
        if version != FORMAT:
            raise IncompatibleError(
                f"{where} has format {reprlib.repr(version)}, this release reads {FORMAT}; "
                + ("install a newer pocketxl" if isinstance(version, int) and version > FORMAT else _REBUILD)
            )
        try:
            manifest = decode(cls, data, where)
        except IntegrityError as error:  # the digest fits, so it is as it was written
            maker = data.get("created_by")
            shown = maker[:60] if isinstance(maker, str) and maker else "an unknown program"
            raise IntegrityError(f"{error}; another version ({shown}) has made this engine; {_REBUILD}") from error
        check(manifest, where)
        return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder`/engine.json. Raises `IntegrityError`, `IncompatibleError` or `StorageError`."""
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntegrityError(
            f"{path} is missing, so {folder} is not an engine folder; give a folder that `pocketxl build` made"
        ) from error
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text; {_REBUILD}") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise IntegrityError(
            f"{path} has more than {MOST_BYTES} bytes, so it is not the description of an engine; {_REBUILD}"
        )
    return Manifest.from_json(text, where=str(path))


def checked_path(folder: Path, entry: FileEntry) -> Path:
    """The file's path, once its hash matched; each file is hashed once per process. Raises `IntegrityError`.

    Call it before anything deserialises the file.
    """
    return matched_path(folder, entry)


def checked_file(folder: Path, entry: ComponentEntry, name: str) -> Path:
    """The path of a component's file of that name, once the hashes of all its files matched. Raises `IntegrityError`.

    All of them, because a runtime opens by itself those that its graph names.
    """
    paths = {path.name: path for path in (checked_path(folder, file) for file in entry.files)}
    if name not in paths:
        raise IntegrityError(f"{folder / FILE_NAME} names {', '.join(paths)} and no {name} beside them; {_REBUILD}")
    return paths[name]


def checked_factors(folder: Path, entry: ComponentEntry) -> Path | None:
    """Where the factors of an entry's open layers are (`adapters.factors`); None if none has any. Likewise."""
    openings = entry.openings
    return checked_file(folder, entry, openings.factors) if openings is not None and openings.factors else None


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What `verify` went through: files (`engine.json` included) and their bytes."""

    files: int
    bytes: int
    unknown: tuple[str, ...] = ()
    """Files in the folder that do not belong to the engine; nothing reads them."""


def verify(folder: Path, progress: OnBytes | None = None) -> VerifyReport:
    """Hash every file of an engine folder. Raises `IntegrityError` that names every missing or altered file."""
    manifest = read_manifest(folder)
    problems = []
    for entry in manifest.files:
        try:
            hash_file(folder, entry, progress)
        except IntegrityError as error:
            problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise IntegrityError(f"{'; '.join(problems[:5])}{more}; {_REBUILD}")
    size = sum(entry.size for entry in manifest.files) + (folder / FILE_NAME).stat().st_size
    return VerifyReport(files=len(manifest.files) + 1, bytes=size, unknown=manifest.strangers_in(folder))


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(data).encode()).hexdigest()
