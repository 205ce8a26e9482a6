# Our torch modules against diffusers and transformers, and ONNX Runtime against our modules, all float32: the same
# arithmetic in another order. Measured 2e-6 at most over some dozens of layers; a wrong operation is off by 1e-2.
MODEL_RELATIVE = 1e-5

# Text embeddings against diffusers' encode_prompt: the same modules with the same ids, one row instead of two a call;
# hidden states are of order 1, fp32 sums differ in their order.
TEXT_EMBEDS = {"rtol": 1e-5, "atol": 1e-5}
# The float16 ONNX master against the float32 module: 11 bits of mantissa through some dozens of layers.
HALF_RELATIVE = 2e-2
