"""Prompts that change on their way, against diffusers with its embeddings switched by hand from step to step."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner

from ..tolerances import PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 6
Texts = tuple[str, str]
"""What the prompt and the negative are at one step."""


class Switched:
    """diffusers' embeddings of each step, put in place of the running ones by `callback_on_step_end`."""

    def __init__(self, pipeline: Any, texts: Sequence[Texts]) -> None:
        self.pipeline, self.texts = pipeline, texts

    def at(self, evaluation: int) -> tuple[torch.Tensor, ...]:
        """prompt_embeds, negative_prompt_embeds, pooled and negative pooled."""
        prompt, negative = self.texts[min(evaluation, len(self.texts) - 1)]
        with torch.no_grad():
            return self.pipeline.encode_prompt(prompt, negative_prompt=negative, device="cpu")  # type: ignore[no-any-return]

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        embeds, negative, pooled, negative_pooled = self.at(index + 1)
        return {
            "prompt_embeds": torch.cat([negative, embeds]),
            "add_text_embeds": torch.cat([negative_pooled, pooled]),
        }

    def keywords(self) -> dict[str, Any]:
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        return {
            **dict(zip(names, self.at(0), strict=True)),
            "callback_on_step_end": self,
            "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds", "add_text_embeds"],
        }


CASES = [
    ("a red [cat:dog:0.5]", "sky", [("a red cat", "sky")] * 3 + [("a red dog", "sky")] * 3),
    ("a [red|blue] (dog:1.0)", "[sky::2]",
     [("a red dog", "sky"), ("a blue dog", "sky"), ("a red dog", ""), ("a blue dog", ""), ("a red dog", ""),
      ("a blue dog", "")]),
    ("[a red cat:blue sky:2] [and a dog:4]", "",
     [("a red cat ", "")] * 2 + [("blue sky ", "")] * 2 + [("blue sky and a dog", "")] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "negative", "texts"), CASES)
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_changing_prompt_is_its_texts_one_after_another(
    pipe: Pipeline, experts: "Experts", prompt: str, negative: str, texts: list[Texts], sampler: str
) -> None:
    latents = np.random.default_rng(3).standard_normal((1, 4, 8, 8), dtype=np.float32)
    # Two evaluations a step have one text; the last step of heun has one.
    evaluated = [text for text in texts for _ in range(2)] if sampler == "heun" else texts
    switched = Switched(experts.base, evaluated)
    options: dict[str, Any] = {
        "num_inference_steps": STEPS, "guidance_scale": 5.0, "sampler": sampler, "latents": latents, "seed": [4],
        "height": 64, "width": 64, "output_type": "np",
    }  # fmt: skip
    ours = pipe(prompt, negative_prompt=negative, refiner=False, **options).images
    theirs = experts(None, **options, **switched.keywords())  # type: ignore[arg-type]
    first = pipe(texts[0][0], negative_prompt=texts[0][1], refiner=False, **options).images
    assert float(np.abs(ours - theirs).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - first).mean()) > 10 * PICTURE_MEAN  # the change shows


def made(pipe: Pipeline, prompt: Any, **options: Any) -> np.ndarray:
    given = {"num_inference_steps": STEPS, "seed": 5, "output_type": "np", "negative_prompt": "sky", **options}
    return np.asarray(pipe(prompt, **given).images)


def test_the_refiner_goes_on_counting_where_the_base_ended(pipe: Pipeline) -> None:
    # Of six steps (831, 665, 499, …) the refiner makes the last four.
    handed = {"denoising_end": 0.5}
    changing = made(pipe, "a red [cat:dog:2]", **handed)
    options: dict[str, Any] = {"negative_prompt": "sky", "num_inference_steps": STEPS, "seed": 5, **handed}
    request, other = pipe.request("a red cat", **options), pipe.request("a red dog", **options)
    embeddings = {"base": pipe.encode(request)["base"], "refiner": pipe.encode(other)["refiner"]}
    *_, last = pipe.sample(request, embeddings)
    np.testing.assert_array_equal(changing, pipe.decode(last.latents, output_type="np"))


@pytest.mark.parametrize(
    ("changing", "plain"),
    [
        ("a [cat:dog:0]", "a dog"), ("a [cat:dog:9]", "a cat"), ("a [cat|cat]", "a cat"), ("[a cat::1.0]", "a cat"),
        ("a \\[cat:dog:3\\]", None),
    ],
)  # fmt: skip
def test_what_does_not_change_is_the_plain_prompt_to_the_bit(pipe: Pipeline, changing: str, plain: str | None) -> None:
    expected = made(pipe, "a [cat:dog:3]", literal=True) if plain is None else made(pipe, plain)
    np.testing.assert_array_equal(made(pipe, changing), expected)


def counting(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> list[int]:
    """The rows of every call of a component."""
    rows: list[int] = []
    call: Callable[..., Any] = type(runner).__call__

    def counted(self: Any, inputs: Any, *args: Any, **keywords: Any) -> Any:
        if self is runner:
            rows.append(len(next(iter(inputs.values()))))
        return call(self, inputs, *args, **keywords)

    monkeypatch.setattr(type(runner), "__call__", counted)
    return rows


def test_each_text_is_conditioned_once(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    conditioned = counting(monkeypatch, pipe.runners["base/conditioner"])
    made(pipe, "a [red|blue|red] cat", num_inference_steps=9, refiner=False)
    # Red, blue, and the negative, which both have.
    assert sum(conditioned) == 3


def test_pictures_of_a_batch_are_those_of_prompts_alone(pipe: Pipeline) -> None:
    prompts = ["a [red:blue:2] cat", "a dog", "[a|the] dog"]
    together = made(pipe, prompts, negative_prompt="[sky|a cat]", seed=[5, 6, 7])
    for index, prompt in enumerate(prompts):
        alone = made(pipe, prompt, negative_prompt="[sky|a cat]", seed=5 + index)
        np.testing.assert_array_equal(together[index : index + 1], alone)


def test_the_plan_counts_every_text(pipe: Pipeline) -> None:
    plain = pipe.plan("a cat", num_inference_steps=8)
    changing = pipe.plan("a [cat|dog|sky|red]", num_inference_steps=8)
    assert changing.workload.prompt_tokens == (77,) * 4
    of = [next(phase for phase in plan.phases if phase.name == "denoise base") for plan in (plain, changing)]
    assert of[1].constant_bytes == 4 * of[0].constant_bytes


def test_too_many_texts_are_refused(pipe: Pipeline) -> None:
    words = "|".join("abcdefghijk")
    with pytest.raises(RequestError, match="prompt is 40 different texts in turn, at most 32 are allowed"):
        pipe.request(f"[{'|'.join('a' * n for n in range(40))}]", num_inference_steps=50)
    with pytest.raises(RequestError, match="a prompt with its negative is 50 different texts in turn"):
        pipe.plan(f"[{words}]", negative_prompt="[a|b|c|d|e|f|g]", num_inference_steps=50, refiner=False)
