"""What other programs' prompts mean beyond weights, and what is taken as words here."""

import re

# Possessive and bounded by their own brackets: no backtracking, so hostile text costs linear time.
_FOREIGN = re.compile(
    r"\\."  # an escaped bracket is text, and means to be
    r"|(\bAND\b"  # AUTOMATIC1111: prompts painted together
    r"|<\w++:[^<>]*+>"  # <lora:name:1>, <hypernet:…>, <lyco:…>
    r"|\bembedding:\w++"  # ComfyUI
    r"|\{[^{}|]*+\|[^{}]*+\}"  # {a|b}: one of them, by chance
    r"|__\w[\w/-]*?__)",  # __file__: a line of it, by chance
    re.DOTALL,
)
_SHOWN = 40


def unsupported_syntax(prompt: str, *, embeddings: bool = False) -> list[str]:
    """The parts of a prompt that mean something in other programs and are plain words here, each once, shortened.

    `embeddings`: whether the call names a folder of them.

    `AND`, `<lora:name:1>`, `{a|b}`, `__file__`, `embedding:name`. Linear time.
    """
    found: dict[str, None] = {}
    for match in _FOREIGN.finditer(prompt):
        if match[1] and not (embeddings and match[1].startswith("embedding:")):
            text = " ".join(match[0].split())
            found[text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"] = None
    return list(found)
