"""Without a package, what needs it says so in words, from Python as on the command line."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("package", "purpose"), [("tokenizers", "reading prompts"), ("onnxruntime", "this engine"), ("PIL", "a picture")]
)
def test_what_is_missing_is_named(package: str, purpose: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
from pocketxl.engine import IncompatibleError, Pipeline
try:
    Pipeline.load()("a cat", num_inference_steps=1, width=64, height=64)
except IncompatibleError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith(purpose)
    assert "pip install -e '.[cpu]'" in said
