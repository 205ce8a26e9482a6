"""A scheduler config with nothing left out."""

from dataclasses import dataclass
from enum import StrEnum


class PredictionType(StrEnum):
    """What the model predicts."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class BetaSchedule(StrEnum):
    """How the noise grew in training."""

    LINEAR = "linear"
    SCALED_LINEAR = "scaled_linear"
    SQUAREDCOS_CAP_V2 = "squaredcos_cap_v2"


class TimestepSpacing(StrEnum):
    """Where the timesteps lie: table 2 of Lin et al. (2305.08891)."""

    LINSPACE = "linspace"
    LEADING = "leading"
    TRAILING = "trailing"


class FinalSigmasType(StrEnum):
    """The level after the last step: no noise, or the lowest that was trained."""

    ZERO = "zero"
    SIGMA_MIN = "sigma_min"


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """diffusers' options of a scheduler, with the defaults of most of its constructors; `Sampler.defaults` has others.

    `trained_betas` replaces the beta schedule; `sigma_min` and `sigma_max` are the ends of the karras and exponential
    curves (None: those of the trained levels).
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = BetaSchedule.LINEAR
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType = PredictionType.EPSILON
    timestep_spacing: TimestepSpacing = TimestepSpacing.LINSPACE
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: FinalSigmasType = FinalSigmasType.ZERO
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @property
    def taught_steps(self) -> int:
        """How many timesteps an LCM was distilled on."""
        return min(self.original_inference_steps, self.num_train_timesteps)
