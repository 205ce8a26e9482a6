"""The `parameters` text of AUTOMATIC1111, which every viewer of generated pictures reads.

    a red apple
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 1, Size: 1024x1024, Version: PocketXL 0.1.0

The last line holds the settings if it has three or more; values with commas, colons or line breaks are JSON strings.
Where a prompt does not survive that form (it has a line that begins with "Negative prompt:", say), it is also written
as a setting of its own, so that `parse(write(p)) == p` for any `p`.
"""

import json
import re
from collections.abc import Mapping

from ..errors import IntegrityError, RequestError

PROMPT, NEGATIVE = "Prompt", "Negative prompt"
EXACT = {PROMPT: "Exact prompt", NEGATIVE: "Exact negative prompt"}
MAX_CHARACTERS = 1 << 20
MAX_SETTINGS = 256
_LEAST_SETTINGS = 3
_KEY = re.compile(r"\w[\w \-/]{0,62}[\w\-/]")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"(?=\s*+(?:,|\Z))')
_PLAIN = re.compile(r'[^\s",:\x00-\x1f](?:[^",:\x00-\x1f\x7f-\x9f\u2028\u2029]*[^\s",:])?')


def write(parameters: Mapping[str, str]) -> str:
    """Settings → text. `Prompt` and `Negative prompt` (leave it out where there is none) and three or more settings.

    Raises `RequestError` for a key that the form has no room for, too few or too many settings, or too long a text.
    """
    settings = {key: value for key, value in parameters.items() if key not in EXACT}
    for key in settings:
        if not _KEY.fullmatch(key) or key in EXACT.values():
            raise RequestError(f"setting {key[:64]!r} cannot be written; use letters, digits, spaces, '-' and '/'")
    if not _LEAST_SETTINGS <= len(settings) <= MAX_SETTINGS - len(EXACT):
        raise RequestError(f"{len(settings)} settings; write {_LEAST_SETTINGS} to {MAX_SETTINGS - len(EXACT)}")
    body = parameters.get(PROMPT, "")
    if NEGATIVE in parameters:
        body += f"\n{NEGATIVE}: {parameters[NEGATIVE]}"
    given = {PROMPT: "", **{key: parameters[key] for key in EXACT if key in parameters}}
    if _prompts(body) != given:
        settings |= {EXACT[key]: value for key, value in given.items()}
    text = body + "\n" + ", ".join(f"{key}: {_quote(value)}" for key, value in settings.items())
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"the parameters have {len(text)} characters, at most {MAX_CHARACTERS} can be written")
    return text


def parse(text: str) -> dict[str, str]:
    """Text, ours or another program's → settings, `Prompt` always and `Negative prompt` where there is one.

    Takes linear time. Text without settings is a prompt. Raises `IntegrityError` for text over `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise IntegrityError(f"the parameters have {len(text)} characters; more than {MAX_CHARACTERS} are not read")
    text = text.rstrip("\r\n")
    body, _, last = text.rpartition("\n")
    settings = _settings(last)
    if len(settings) < _LEAST_SETTINGS:
        body, settings = text, {}
    read = {key: settings.pop(exact) for key, exact in EXACT.items() if exact in settings} or _prompts(body)
    return {PROMPT: "", **read} | {key: value for key, value in settings.items() if key not in EXACT}


def _prompts(body: str) -> dict[str, str]:
    marker = f"{NEGATIVE}:"
    at = 0 if body.startswith(marker) else body.find(f"\n{marker}") + 1
    if at == 0 and not body.startswith(marker):
        return {PROMPT: body}
    return {PROMPT: body[: max(at - 1, 0)], NEGATIVE: body[at + len(marker) :].removeprefix(" ")}


def _settings(line: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    at, count = 0, 0
    while at < len(line):
        if (count := count + 1) > MAX_SETTINGS:
            return {}
        comma = line.find(",", at)
        comma = len(line) if comma < 0 else comma
        colon = line.find(":", at, comma)
        key = line[at:colon].strip() if 0 <= colon <= at + 128 else ""
        start = colon + 1
        while key and start < comma and line[start] == " ":
            start += 1
        if key and (quoted := _QUOTED.match(line, start)):
            comma = line.find(",", quoted.end())
            comma = len(line) if comma < 0 else comma
            value = _unquote(quoted[0])
        else:
            value = line[start:comma].strip()
        if key and _KEY.fullmatch(key):
            settings[key] = value
        at = comma + 1
    return settings


def _quote(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text
