"""What the pictures are of: prompts of the miniature whose pictures depend on the seed."""

import numpy as np
import numpy.typing as npt

from pocketxl.engine.pipeline import Pipeline

Pictures = npt.NDArray[np.float32]

# The miniature draws most prompts nearly alike whatever the seed (41 dB apart), which would flatter any system; objects
# that fill the picture are 17 to 25 dB apart (fp32, 12 steps, three seeds each).
PROMPTS = (
    "a large sunflower on a black background",
    "a large owl on a yellow background",
    "a large robot on a black background",
    "a large castle on a white background",
    "a large cactus on a pink background",
    "a large octopus on a black background",
    "a large penguin on a red background",
    "a large rocket on a black background",
    "a large guitar on a black background",
    "a large butterfly on a black background",
)


def pictures(pipe: Pipeline, count: int, *, steps: int, size: int) -> Pictures:
    """`count` pictures, `(count, size, size, 3)` in [0, 1]; picture i is prompt i (again from the first) and seed i."""
    made = []
    for i in range(count):
        result = pipe(
            PROMPTS[i % len(PROMPTS)], seed=i, num_inference_steps=steps, width=size, height=size, output_type="np"
        )
        made.append(np.asarray(result.images, np.float32))
    return np.concatenate(made)
