"""What the reference run is asked for."""

# Short, varied, and within what any model of the family was trained on: one object, two of them.
PROMPTS = (
    "a red apple on a blue background",
    "a robot to the left of a tree on a green background",
)
# Of these nothing is kept but what layers show: bright and dark, flat and full of detail, many colours and none. Two
# stand for a prompt and its negative: the U-Net sees both.
WATCHED = (
    ("a portrait of a smiling woman with a flower, detailed photograph", "a large lemon on a black background"),
    ("a castle on a hill at sunset, oil painting", "a white cup on a white table, product photograph"),
)
WATCHED_TO_THE_END = (
    ("a black cat at night, neon lights, high contrast", "a large violet balloon on a yellow background"),
    ("mountains in fog, black and white", "a crowd in front of a brick house, sharp, intricate"),
)
