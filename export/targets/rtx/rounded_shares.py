"""The one thing about attention of 8-bit floats that no ONNX file says: that softmax's shares are rounded too.

For the builder's process, which has no use for torch; see `fp8_attention`.
"""

from typing import Any, Final

import numpy as np

from ...quantize.attention_places import SHARE_STEP

MARK: Final = "/e4m3"
"""At the end of the names of such attentions' nodes."""
_SHARE_STEP_DATA: Final = np.array(SHARE_STEP, np.float32)
"""Networks keep no copy of it."""


def round_shares(trt: Any, network: Any, layer: Any) -> None:
    """Ask for rounded shares in the attention of that input layer, if its node bears the mark.

    What the attention cannot say by itself must not be asked of it: the library takes that for an error.
    """
    if layer.name.split("_AttentionInput")[0].endswith(MARK):
        layer.attention.normalization_quantize_to_type = trt.DataType.FP8
        step = network.add_constant((), trt.Weights(_SHARE_STEP_DATA))
        layer.attention.normalization_quantize_scale = step.get_output(0)
