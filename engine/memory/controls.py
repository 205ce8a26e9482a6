"""What ControlNets and adapters of pictures take in a call, told by the edges of their components."""

from collections.abc import Mapping

from ..runners.base import Runner
from ..specs import ComponentSpec, TensorSpec
from .workload import Workload

FLOAT = 4
MODEL = "base"
"""The model whose part of the loop they take part in."""
PREFIX = "controlnets/"
ADAPTERS = "t2i_adapters/"
IMAGE_PROMPT = "image_prompt"
"""What an IP-Adapter's components lie in."""


def model_of(component: str) -> str:
    """The model in whose part of the loop a component is called: `base/unet` → `base`."""
    return MODEL if component.startswith((PREFIX, ADAPTERS, IMAGE_PROMPT)) else component.partition("/")[0]


def part(name: str, of: str) -> str:
    """A part of the ControlNet `name` among the pipeline's components."""
    return f"{PREFIX}{name}/{of}"


def adapter_part(name: str, of: str) -> str:
    """A part of the T2I adapter `name` among the pipeline's components."""
    return f"{ADAPTERS}{name}/{of}"


def feature_bytes(runners: Mapping[str, Runner], workload: Workload) -> int:
    """The features of all T2I adapters and their sum, and the picture that one is made of."""
    specs = [runners[adapter_part(name, "encoder")].spec for name in workload.adapters]
    each = [_bytes(spec.outputs, workload, rows=1) for spec in specs]
    # The sum is made by adding one to another, which are two arrays more for a moment.
    return (
        sum(each) + 3 * max(each, default=0) + max((_bytes(spec.inputs, workload, rows=2) for spec in specs), default=0)
    )


def hint_bytes(runners: Mapping[str, Runner], workload: Workload) -> int:
    """The hints of all ControlNets as they wait for the loop, and the picture that one is made of."""
    specs = [runners[part(name, "hint_encoder")].spec for name in workload.controls]
    hints = sum(_bytes(spec.outputs, workload, rows=1 + workload.rows) for spec in specs)
    return hints + max((_bytes(spec.inputs, workload, rows=2) for spec in specs), default=0)


def conditioning_bytes(spec: ComponentSpec, workload: Workload) -> int:
    """What a ControlNet's keys, values and time vectors take, of all prompts and both sides of the guidance."""
    per_token = sum(int(t.shape[-1]) for t in spec.outputs if "tokens" in t.shape)
    per_step = sum(int(t.shape[-1]) for t in spec.outputs if "steps" in t.shape)
    steps = len(workload.prompt_tokens) * workload.evaluations.get(MODEL, 0)
    return FLOAT * workload.rows * (sum(workload.prompt_tokens) * per_token + steps * per_step)


def image_prompt_bytes(runners: Mapping[str, Runner], workload: Workload) -> int:
    """Keys and values of all pictures and of none, once for all prompts."""
    outputs = runners[f"{IMAGE_PROMPT}/projection"].spec.outputs
    return FLOAT * workload.rows * workload.image_prompts * sum(int(t.shape[1]) * int(t.shape[2]) for t in outputs)


def residual_bytes(runners: Mapping[str, Runner], workload: Workload) -> int:
    """What ControlNets give in one step: of one, and where there are several, of the next and the sum too."""
    of_one = max(
        (_bytes(runners[part(name, "unet")].spec.outputs, workload, workload.rows) for name in workload.controls),
        default=0,
    )
    return of_one * (1 if len(workload.controls) < 2 else 3)


def _bytes(tensors: tuple[TensorSpec, ...], workload: Workload, rows: int) -> int:
    """Of tensors `[batch, channels, height, width]` at the size of the picture, its latents or a part of those."""
    found = 0
    for tensor in (tensor for tensor in tensors if len(tensor.shape) == len(("batch", "channels", "height", "width"))):
        _, channels, *sides = tensor.shape
        down = int(str(sides[0]).partition("/")[2] or 1) * (1 if str(sides[0]).startswith("image") else 8)
        found += int(channels) * -(-workload.height // down) * -(-workload.width // down)
    return FLOAT * rows * found
