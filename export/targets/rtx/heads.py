"""Which attentions are one kernel, and what is done about those that are not.

TensorRT for RTX has fused kernels for heads of 12 to 256 numbers in half precision, on every GPU generation, causal or
not (tried: 12, 16, 24, 32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256; refused: 4, 8, 320, 512). For these it is
told not to make anything else, so that a build fails instead of writing the scores of all pixels to memory. The VAE's
attention has one head of 512: its queries are cut into chunks, and the scores of one chunk are there at a time.
"""

FUSED_HEADS = range(12, 257)
CHUNKS, MORE_CHUNKS = 8, 32
"""At 1024² the VAE attends to 16,384 pixels: scores of 2,048 × 16,384 take 67 MB, less than its largest tensor. They
grow faster than that, so that engines for more than 1536² have more."""
