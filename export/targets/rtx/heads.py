"""How wide the heads of an attention may be for a fused kernel (see `attention`)."""

FUSED_HEADS = range(12, 257)
