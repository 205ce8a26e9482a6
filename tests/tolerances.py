# Our torch modules against diffusers and transformers, and ONNX Runtime against our modules, all float32: the same
# arithmetic in another order. Measured 2e-6 at most over some dozens of layers; a wrong operation is off by 1e-2.
MODEL_RELATIVE = 1e-5

# Text embeddings against diffusers' encode_prompt: the same modules with the same ids, one row instead of two a call;
# hidden states are of order 1, fp32 sums differ in their order.
TEXT_EMBEDS = {"rtol": 1e-5, "atol": 1e-5}
# The float16 ONNX master against the float32 module: measured 1.3e-3 at most, a few roundings at 11 bits of mantissa.
# A timestep rounded to float16 costs 2e-2.
HALF_RELATIVE = 4e-3

# A small VAE decoder with random weights and every tensor rounded to float16, norms apart: measured 2.4e-3 to 5.8e-3
# over six seeds, the same for one whose tensors reach 1e5 to 1e8 and are scaled into the range. Beyond it all is NaN.
HALF_ROUNDED_RELATIVE = 1e-2

# Our normal numbers against torch's on the CPU, in units in the last place: torch's AVX2 and AVX512 code has coarse
# polynomials for log, sin and cos. Measured 3 over a million draws; one wrong bit of the uniform number is thousands.
NOISE_ULPS = 4

# Noise levels against diffusers': torch's float32 square root is one unit in the last place off on some machines.
SIGMA_RELATIVE = 2e-7

# The same after rescaling to zero terminal SNR, which adds such units up and subtracts from one. Measured 7.3e-6 over
# all 1000 levels; the public checkpoints' own levels are equal to the bit.
SIGMA_RELATIVE_RESCALED = 2e-5

# A fractional timestep is interpolated between logarithms, which carry that unit on: measured 8e-4 of 1000.
TIMESTEP_ABSOLUTE = 2e-3

# A whole sampling run against diffusers with the same noise, as a share of the largest latent. Both compute in float32,
# in another order; noise-predicting models divide that by a signal of 1/15 in one step. Measured 4e-5, mostly 1e-6.
SAMPLER_RELATIVE = 1e-4

# The same where latents begin as 4096 times noise (zero terminal SNR, euler, euler_a, dpmpp_sde): float32
# resolves 1e-3 there, and in one or two steps nothing averages that out. Measured 4e-3 for one step, 2e-7 for fifty.
SAMPLER_FROM_4096 = 1e-2

# A second-order solver at 200 steps against the exact solution for Gaussian data. Measured 5e-3; a first-order one
# (euler, ddim) is at 2e-2, a wrong coefficient at 1.
SOLUTION_RELATIVE = 4e-2

# Standard deviation of 6 x 4096 samples against the data's: 0.5 % is sampling error, the rest the solver's in 200 steps
# (measured 2.9e-2 for euler_a); dpmpp_sde is at 1e-2, and at 4.4e-2 if its halves had noise of their own.
SPREAD_RELATIVE = 4e-2

# ONNX Runtime's int8 kernels against the same quantization in float64, L2: their sums are exact integers, so what is
# left is float32 scaling and ties that round the other way. A lost zero point or scale is off by 1e-1.
INT8_KERNEL_RELATIVE = 1e-3

# A whole network in 16-bit floats (a rounding is 2^-11, some tens of layers) against 32-bit. Not yet measured on a GPU.
TENSORRT_FP16_RELATIVE = 1e-2

# Whole pictures in [0, 1], mean absolute difference, where a U-Net's latents, keys, values and predictions are float16
# and all else is float32: four roundings of 2^-11 a step. Measured 8e-5; rows in the wrong order are off by 1e-2.
FLOAT16_EDGE_PICTURE = 5e-4

# The same where everything is computed in float16. Not yet measured on a GPU.
FLOAT16_PICTURE = 5e-3

# What a pipeline took on a device as a share of its plan's, without the driver's allowance. Measured 0.97 to 0.99 for
# the tiny engine, whose activations are taken to be as planned: what is left is what tensors cross in.
PLAN_TAKEN_AT_LEAST = 0.9

# Measured over predicted working memory, either way: ONNX Runtime's blocked convolution layouts and packed operands
# against plain liveness. Measured 0.91 (U-Net) and 1.01 (VAE decoder).
ACTIVATION_BYTES_FACTOR = 1.35

# Whole pictures in [0, 1] against diffusers', mean absolute difference: 20 steps of float32 sums in another order.
# Measured 7e-7 at most over all samplers and schedules, far below the 1e-3 that is promised; a point of the refiner's
# aesthetic score is 6e-5, a word of the prompt 4e-2.
PICTURE_MEAN = 1e-5

# The same where latents begin as 4096 times noise (see SAMPLER_FROM_4096). Measured 6e-6.
PICTURE_MEAN_FROM_4096 = 5e-5

# What counts as another picture, mean absolute difference; ten times what counts as the same.
PICTURE_CHANGE = 1e-4

# One layer on int8 weights and activations against its float form, normal data, L2: two roundings to 127 steps of a
# largest value of about four standard deviations. Measured 1.2 %; a scale of the wrong axis is off by tens of percent.
INT8_LAYER_RELATIVE = 0.02

# A whole tiny U-Net of such layers.
INT8_UNET_RELATIVE = 0.06

# How far an 8-bit integer may be from the float64 value, in steps: half of one is rounding; the rest is float32
# arithmetic before it, 127 steps at some 1e-6. Measured 0.5003.
INT8_STEPS = 0.502

# A quantization's scale against float64's: some roundings of float32. Measured 4e-7.
SCALE_RELATIVE = 3e-6

# The same for float8 (e4m3): half a unit of three bits of mantissa, 2^-4 of the value.
FLOAT8_RELATIVE = 0.0626

# Relative squared error of 4-bit weights in groups of 64, Gaussian: with scale = amax / 7, and with the scale that is
# searched for. Measured on a million weights; sampling moves them by 0.3 % on a third of that.
W4_GAUSSIAN_AMAX = 0.0116
W4_GAUSSIAN = 0.0083
# The same with a zero point, and scale and zero point searched for. Measured 0.00762 on 13 million weights.
W4_GAUSSIAN_ZERO = 0.0076

# Attention on int8 queries (a scale each) and keys (a scale for 64) against float64, normal data, L2: two roundings to
# 127 steps. Measured 0.96 to 1.1 %; keys with offsets of 50 and 80 whose mean is not subtracted are off by 18 %.
INT8_ATTENTION_RELATIVE = 0.02

# The same against plain ONNX that rounds as the kernel does: halves' rounding of what is rounded, shares, sums, and the
# few integers that lie between two. Measured 0.39 and 0.42 % where scores are large; the 8 bits themselves are 1.26 %.
ATTENTION_STAND_IN_RELATIVE = 6e-3

# Share of integers that a mean summed in another order (float32) may round the other way. Measured: none of these.
INT8_ATTENTION_STEPS = 1e-3

# A stressed network against its original, both in float64. A power of two moves no bit of a weight, and what is left is
# the order of sums; a channel that is not taken back is off by 1e-2 and more.
STRESSED_BY_POWER_OF_TWO = 1e-10

# A small network and the same one with factors from 1/8 to 8 in its weights, both in float32: rounding, layers deep.
SMOOTHED_RELATIVE = 1e-4

# The same with a low-rank pair beside every layer, whose factors are undone in the pair.
OPEN_RELATIVE = 1e-4

# The same by another factor, whose products are rounded to float32 (6e-8) once in every tensor.
STRESSED_RELATIVE = 1e-6
# The error of a component of a build whose checkpoint has outlier channels, relative to that of the tame one: smoothing
# has the samples of a few calls to go by. Measured 1.18 (a text encoder), the U-Nets less.
STRESSED_BUILD = 1.25

# SSIM against scikit-image's, both in float64: sums in another order. A window of another width is off by 1e-3.
SSIM_ABSOLUTE = 1e-10
# A small U-Net with random weights, all of its linear layers in a format (w4: convolutions too), against float32.
# Measured 0.17 %, 0.17 %, 1.1 % and 11.2 %; w4a8 is at 3.0 % without its zero points, at 130 % with halves of bytes
# swapped.
NETWORK_RELATIVE = {"w8a8_token": 0.0025, "w8a8_group": 0.0025, "w4a8": 0.016, "w4": 0.16}

# A small U-Net with random weights as the recipe lowers it, on inputs of another size than its static ranges are from,
# without a choice of other formats: 11.7 % where trained ones lose 1 to 5.
RECIPE_RELATIVE = {"int8": 0.15, "fp8": 0.15}

# A group norm, SiLU and a layer norm in half precision against float32, values up to 5: a few roundings of 2^-11.
HALF_NORM_ABSOLUTE = 0.02

# Attention whose queries come in chunks against the whole, both in float32: sums in another order.
CHUNKED_ATTENTION_ABSOLUTE = 1e-5

# A small network with random weights in half precision against float32, computed in float32 where ONNX Runtime's
# processor has no kernel for half: the rounding of weights (2^-12 of each) and of what goes from layer to layer.
# Measured 2e-4 (U-Net, conditioner), 8e-4 (text encoder) and 1.4e-3 (VAE); with two weights exchanged it is tens of
# percent.
HALF_NETWORK_RELATIVE = 2e-3

# A tiny network's picture in half precision against float32's, in dB. Measured 68; pictures of two seeds are at 21
# (miniature).
HALF_PICTURE_DB = 50.0
# The same, two rows to a call or one: at most other orders of sums. Measured: no difference.
SAME_PICTURE_DB = 80.0

# A small program's output, as a root of squares, against float64 references that round to 8 bits at the same places:
# where two sums differ in their last bits a rounding goes the other way, a whole step of 1/127, a dozen times in a row.
# Measured in the interpreter: 0.013 at most.
SMALL_PROGRAM_RELATIVE = 0.03

# A narrow U-Net of the GPU benchmark, whose residual branches add little, in int8 on the kernels' own sources, against
# diffusers in float32. Measured 8.6e-3.
INT8_NARROW_UNET_RELATIVE = 0.02

# A VAE run over bands against its uncut graph: sums in another order. Measured 3e-6 and less.
BANDS_RELATIVE = 2e-5
# The same in halves, each value rounded where it is kept, as the whole graph's. Measured 2.6e-3 and less.
BANDS_HALVES = 5e-3
# In 8 bits for `rtx`, how far it may be from diffusers in terms of the whole graph. Measured 0.986.
BANDS_EIGHT_BITS = 1.1
# The same in 8 bits, where the last bit of a float decides to which side a number is rounded: measured 9e-3 on random
# weights, half of what rounding itself costs there.
BANDS_ROUNDED = 2e-2

# benchmarks.cpu: a tiny network's result and a picture of four steps, our fp32 engine against diffusers, relative L2.
# Measured 2e-6 at most; a wrong timestep, size or hand-over is at 1e-3 and more.
CPU_BENCHMARK = 1e-4

# The same through a picture of 8 bits on the way (hires fix): where two floats differ in their last bits a pixel is
# rounded the other way, 4e-3 of one. Measured 2e-5.
PICTURE_MEAN_THROUGH_PIXELS = 1e-4

# A stand-in in halves, cut into segments, against the same as a whole: what lies between segments is rounded to halves,
# where ONNX Runtime otherwise hands float32 from one operator to the next. Measured 6.4e-4 at most; a segment
# that is given another value than its own is off by a half and more.
STAND_IN_IN_SEGMENTS = 2e-3

# A picture enlarged in tiles against the network on the whole of it, in steps of 1/255: what rounds the other way where
# a tile is not the picture. Measured 1; tiles without what they share are off by dozens at the cut.
SEAM = 1

# OpenVINO beside the same whole numbers in float32, relative to how much a channel's outputs differ from each other:
# scales are joined into one multiplication behind the sums (measured: 3e-7 to 2e-5).
OPENVINO_PRODUCT_RELATIVE = 1e-4

# A U-Net of OpenVINO in float32, beside the module.
OPENVINO_UNET_RELATIVE = 1e-5

# A picture of a small random network of four steps, its U-Nets on OpenVINO and on ONNX Runtime, both in float32.
OPENVINO_PICTURE_DB = 80.0

# A decoder on OpenVINO in float32, at once and over bands, beside diffusers. Measured at full width 2.7e-6 over bands,
# and at once, where convolutions behind doublings are four, 5.8e-6.
OPENVINO_BANDS_RELATIVE = 1e-5

# The same with all convolutions but the first and the last in 8 bits, on random weights. Measured 0.062.
OPENVINO_DECODER_RELATIVE = 0.08

# The same over bands of other heights, where a number that lies near a half is rounded to the other side, and steps of
# the first layers are large on random weights. Measured 0.033.
OPENVINO_BANDS_ROUNDED = 0.05

# A convolution of a doubled picture in int8 as four of the picture, whose weights are sums of taps, of more different
# sizes: its error, relative to that with the taps themselves rounded. Measured 1.01 to 1.06.
DOUBLED_INT8 = 1.15

# int8 queries and keys, scores of the order of one and peaks of a few: what rounding each side to 1/127 of its largest
# number leaves of shares, and of attention. Measured: 0.7 to 1.2 %.
SCORES_RELATIVE = 0.03

# A pair of random numbers multiplied out of its slot. 8 bits: steps of 1/127 of a row's largest number, some 3 times
# its mean (measured 0.6 %). Halves: 2^-11 on either side (measured 0.04 %).
SLOT_INT8_RELATIVE = 0.02
SLOT_HALF_RELATIVE = 2e-3

# Predicted seconds of whole U-Nets on an H100 against those measured, by its own clock. Measured 1 to 4 % off over
# four; each tile's time there was fitted, so that is as near as sums of parts come. Kernels that have become faster on
# Hopper since are a reason to measure again, not to widen it.
PREDICTED_FORWARD = 0.1

# The same of a forward whose int8 products are Triton's, which nothing was fitted to. Measured 21 % too fast: a step
# waits for more than the model says, and tiles read more than L2 gives. GeForce's predictions stand on this.
PREDICTED_WAVES = 0.25

# A float16 network as the best program of libraries should run it against torch.compile on an H100: predicted 20 % too
# fast, as additions are all fused there, attention is cuDNN's and the prompt's keys and values are computed elsewhere.
PREDICTED_FLOAT16 = 0.25

# int8 products by the model against those of the same design measured on an RTX 5090, and float16 against steps a
# second that people report of a 3090. Measured 9 % at most of five.
PREDICTED_ANCHOR = 0.1

# A picture of the miniature of one step with a LoRA, the U-Net in the int8 form of `cuda` on one side and of `cpu` on
# the other, in dB: both round to 8 bits, at other places. Measured 37.4; 6.7 where pairs behind attention and GEGLU do
# not know their inputs' steps.
INT8_LORA_PICTURE_DB = 33.0
# The same without the LoRA on one side, at most. Measured 6.7.
LORA_PICTURE_DB = 15.0
