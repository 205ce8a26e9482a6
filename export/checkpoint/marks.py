"""What a model predicts and how its noise ends: the marks that single files carry, and what a caller overrules.

Models that predict noise and models that predict velocity have the same tensors, so that nothing else tells them apart,
and a picture made under the wrong one is wrong without an error. Hence no mark is passed over: one that is unknown and
two that contradict each other are refused, until the caller says what is true.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ...engine.errors import IncompatibleError
from ...engine.sampling.levels.config import SchedulerConfig
from ...engine.sampling.levels.settings import PredictionType, TimestepSpacing
from ...engine.stored.header import Header
from .families import FAMILIES

T = TypeVar("T")

# Empty tensors that ComfyUI and trainers write.
V_TENSOR, ZERO_SNR_TENSOR = "v_pred", "ztsnr"
# Stability's ModelSpec, ComfyUI's name for the same entry, and kohya's sd-scripts.
PREDICTION_NOTES = ("modelspec.prediction_type", "modelspec.predict_key")
V_NOTE, ZERO_SNR_NOTE = "ss_v_parameterization", "ss_zero_terminal_snr"
FAMILY_NOTES = ("modelspec.architecture", "ss_base_model_version")
# How the notes call it, lower-case and with underscores.
SPELLINGS: Mapping[str, PredictionType] = {
    **dict.fromkeys(("epsilon", "eps", "eps_pred", "eps_prediction", "epsilon_prediction"), PredictionType.EPSILON),
    **dict.fromkeys(("v", "v_pred", "vpred", "v_prediction", "v_parameterization"), PredictionType.V_PREDICTION),
}
TRUTHS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}
UNSAID = ("", "none", "null")
OTHER_FAMILIES = ("stable-diffusion-3", "flux", "sd3", *(note for family in FAMILIES.values() for note in family.notes))
"""How the notes of families begin."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is said of a model's noise; None where nothing is."""

    prediction_type: PredictionType | None = None
    zero_snr: bool | None = None
    """Whether the last trained timestep has no signal left (2305.08891)."""

    def applied(self, config: SchedulerConfig) -> SchedulerConfig:
        """A scheduler config that agrees with it.

        Where zero terminal SNR comes in, steps are laid `trailing`: only so is the timestep visited that it is about.
        """
        if self.prediction_type is not None:
            config = replace(config, prediction_type=self.prediction_type)
        if self.zero_snr and not config.rescale_betas_zero_snr:
            config = replace(config, timestep_spacing=TimestepSpacing.TRAILING)
        return config if self.zero_snr is None else replace(config, rescale_betas_zero_snr=self.zero_snr)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One statement: where it stands, and what it says."""

    place: str
    value: Any


def noise_of(
    header: Header, source: Path, asked: Noise, described: SchedulerConfig | None, kind: str = "base"
) -> Noise:
    """What the marks of a single file of that kind say; what is `asked` for counts more than they do.

    `described`: the scheduler config that the caller gave for the file, which is a mark where it says more than the
    public models' does. Raises `IncompatibleError` for marks that are unknown or contradict each other.
    """
    marks = _predictions(header, source, described) if asked.prediction_type is None else []
    if asked.prediction_type is None:
        _held_to_family(header, source, kind)
    zeros = _zero_snrs(header, source, described) if asked.zero_snr is None else []
    prediction = asked.prediction_type or _agreed(marks, source, "--prediction-type epsilon or v_prediction")
    if prediction is None and described is None and not FAMILIES[kind].told:
        raise IncompatibleError(
            f"{source} is {FAMILIES[kind].title} and says nowhere what it predicts: models of 768 pixels predict "
            "velocity, models of 512 noise, and their tensors are alike; say which with --prediction-type "
            "v_prediction or epsilon"
        )
    zero_snr = asked.zero_snr
    if zero_snr is None:
        zero_snr = _agreed(zeros, source, "--zero-snr or --no-zero-snr")
    return Noise(prediction_type=prediction, zero_snr=zero_snr)


def _predictions(header: Header, source: Path, described: SchedulerConfig | None) -> list[Mark]:
    marks = []
    if V_TENSOR in header.tensors:
        marks.append(Mark(place=f"the tensor {V_TENSOR}", value=PredictionType.V_PREDICTION))
    for note in PREDICTION_NOTES:
        for said in _said(header, note):
            value = SPELLINGS.get(said.lower().replace("-", "_").replace(" ", "_"))
            if value is None:
                raise _unknown(source, note, said, "epsilon and v are what PocketXL runs", "--prediction-type")
            marks.append(Mark(place=f"the metadata {note} {said!r}", value=value))
    for mark in _truths(header, source, V_NOTE, "--prediction-type"):
        kind = PredictionType.V_PREDICTION if mark.value else PredictionType.EPSILON
        marks.append(replace(mark, value=kind))
    if described is not None and described.prediction_type is PredictionType.V_PREDICTION:
        marks.append(Mark(place="the scheduler_config.json of --config", value=described.prediction_type))
    return marks


def _zero_snrs(header: Header, source: Path, described: SchedulerConfig | None) -> list[Mark]:
    marks = _truths(header, source, ZERO_SNR_NOTE, "--zero-snr or --no-zero-snr")
    if ZERO_SNR_TENSOR in header.tensors:
        marks.append(Mark(place=f"the tensor {ZERO_SNR_TENSOR}", value=True))
    if described is not None and described.rescale_betas_zero_snr:
        marks.append(Mark(place="the scheduler_config.json of --config", value=True))
    return marks


def _truths(header: Header, source: Path, note: str, option: str) -> list[Mark]:
    """A note that is true or false."""
    marks = []
    for said in _said(header, note):
        if said.lower() not in TRUTHS:
            raise _unknown(source, note, said, "True and False are known", option)
        marks.append(Mark(place=f"the metadata {note} {said!r}", value=TRUTHS[said.lower()]))
    return marks


def _held_to_family(header: Header, source: Path, kind: str) -> None:
    """Notes that were copied from a file of another family say nothing of this one."""
    own, others = FAMILIES[kind], tuple(note for note in OTHER_FAMILIES if note not in FAMILIES[kind].notes)
    for note in FAMILY_NOTES:
        for said in _said(header, note):
            if said.lower().startswith(others) and not said.lower().startswith(own.notes):
                raise _unknown(source, note, said, f"its tensors are those of {own.title}", "--prediction-type")


def _said(header: Header, note: str) -> Iterable[str]:
    """What the metadata says under a name, if it says anything."""
    said = header.metadata.get(note, "").strip()
    return () if said.lower() in UNSAID else (said,)


def _agreed(marks: Iterable[Mark], source: Path, options: str) -> Any:
    """What all marks say, or None without any."""
    places: dict[Any, str] = {}
    for mark in marks:
        places.setdefault(mark.value, mark.place)
    if len(places) > 1:
        words = " and ".join(f"{place} says {_word(value)}" for value, place in places.items())
        raise IncompatibleError(f"{source} contradicts itself: {words}; say which is true with {options}")
    return next(iter(places), None)


def _word(value: object) -> str:
    return str(value) if isinstance(value, PredictionType) else f"{'' if value else 'no '}zero terminal SNR"


def _unknown(source: Path, note: str, said: str, known: str, option: str) -> IncompatibleError:
    return IncompatibleError(
        f"{source}: its metadata {note} is {said[:80]!r}, but {known}; if that note is wrong, say what is true with "
        f"{option}"
    )
