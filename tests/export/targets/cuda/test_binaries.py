"""A build refuses kernels that cannot run, and says why once."""

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.program.program import Call, Option
from pocketxl.export.targets.cuda.binaries import binaries


def test_a_reason_that_kernels_share_is_told_once() -> None:
    """Here Triton interprets kernels, so none can be compiled."""
    shape: dict[str, Option] = {"m": "rows0", "c": 64, "eps": 1e-5}
    calls = [
        Call(op="layer_norm", layer="a", shape=shape, inputs={}, outputs={}),
        Call(op="quantize_per_token", layer="b", shape={"m": "rows0", "c": 64}, inputs={}, outputs={}),
    ]
    with pytest.raises(IncompatibleError, match="kernels for sm_89 may not be used") as caught:
        binaries(calls, [89], jobs=1, tell=lambda text: None)
    assert str(caught.value).count("unset it") == 1
