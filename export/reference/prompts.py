"""What the reference run is asked for."""

# Short, varied, and within what any model of the family was trained on: one object, a scene, a face, fine texture.
PROMPTS = (
    "a red apple on a blue background",
    "a robot to the left of a tree on a green background",
    "a portrait of a smiling woman with a flower, detailed photograph",
    "a castle on a hill at sunset, oil painting",
)
